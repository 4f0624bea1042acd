"""When POSTs may go to the hub: one gate before all of them, and one before each namespace that the hub holds. Pure.

Signals in (what each answer says of the hub, whoever asked), permits out (how many requests may be claimed now, of
which namespaces not, and when to look again). Times are seconds of one monotonic clock.

The gate closes at a 429 until its `Retry-After`; at a 401, 402, 403 or a foreign 404; and at a run of failures. A
closed gate lets one POST through at each look, the probe; a healthy answer to it opens the gate, at first for two
POSTs, then for twice as many at each healthy answer, up to the concurrency. An answer to a POST that began before the
gate closed is old news: it neither opens nor closes anything, but a `Retry-After` counts whenever it comes, and one
that came while the probe was under way outlasts it.

While the gate is open, failures since the latest healthy answer keep their places: so a hub that has died is sent no
more POSTs than the concurrency, and leaves no more doubts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from service.domain.facts import SubmitOutcome
from service.domain.retry import Backoff

PROBE_S = 15.0  # between probes of a gate that somebody has to open
FAILURES = 8  # in a row, that close the gate
LEAST_WAIT_S, MOST_WAIT_S = 1.0, 3600.0  # what is made of a Retry-After
LATER_SHARE = 0.25  # jitter: by up to this share of a Retry-After later
NOTHING_TO_PROBE_S = 1.0


class Reason(StrEnum):
    """Why submission is paused, as metrics and the log say it."""

    LIMITED = "limited"
    UNAUTHENTICATED = "unauthenticated"
    UNPAID = "unpaid"
    FORBIDDEN = "forbidden"
    FOREIGN = "foreign"
    FAILING = "failing"

    @property
    def remedy(self) -> str:
        """What there is to do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Reason.LIMITED: "the hub asks for fewer requests; DROVER_SUBMIT_RATE_PER_S would keep below its limit",
    Reason.UNAUTHENTICATED: "the hub does not take the key; check OXEN_API_KEY",
    Reason.UNPAID: "the account at the hub has no credits; top it up",
    Reason.FORBIDDEN: "the key may not do this at the hub; check OXEN_API_KEY and the namespace",
    Reason.FOREIGN: "what answers at OXEN_BASE_URL is not the hub; check the address",
    Reason.FAILING: "the hub does not answer, or not sensibly; nothing to do here if it is down",
}
NAMESPACED = (Reason.UNPAID, Reason.FORBIDDEN)  # of a request with a target_namespace, these concern that one alone


class Healthy(Struct, frozen=True):
    """The hub judged the request, for it or against it."""


class Limited(Struct, frozen=True):
    """The hub wants nothing from anybody for `wait_s` seconds; None: it does not say for how long."""

    wait_s: float | None = None


class Held(Struct, frozen=True):
    """The hub will take nothing until somebody mends something."""

    reason: Reason


class Unreachable(Struct, frozen=True):
    """No connection was made."""


class Unclear(Struct, frozen=True):
    """A timeout, a reset, a 5xx, nonsense; `wait_s` when it came with a Retry-After."""

    wait_s: float | None = None


Signal = Healthy | Limited | Held | Unreachable | Unclear


class Submission(Struct, frozen=True):
    """One POST: what became of the request, and what the answer says of the hub."""

    outcome: SubmitOutcome
    signal: Signal


class Post(Struct, frozen=True):
    """One POST, from the claim of its request to its outcome. `ticket` orders it among the closings of gates."""

    ticket: int
    namespace: str | None = None


class Permit(Struct, frozen=True):
    """Up to `limit` requests may be claimed, of any namespace but those `held`, or of `only` this one."""

    limit: int
    held: tuple[str, ...] = ()
    only: str | None = None


class GatePolicy(Struct, frozen=True):
    """How wide the gate is, and how patient. The probes' back-offs are in seconds."""

    concurrency: int
    failures: int = FAILURES
    # From one second on: an alarm that was false, or mended at once, costs a second and not fifteen.
    probe: Backoff = field(default_factory=lambda: Backoff(first=1.0, limit=PROBE_S))
    broken: Backoff = field(default_factory=lambda: Backoff(first=1.0, limit=60.0))


class Closure(Struct, frozen=True):
    """A closed gate: since when, until when nothing goes, and how many probes have failed since."""

    reason: Reason
    since: float
    look_at: float
    ticket: int  # POSTs with a lower one began before it closed
    probes: int = 0
    probing: bool = False  # of a namespace: its probe is under way


class Gate(Struct, frozen=True):
    """The gate of one replica. Every method answers a new one, or a value."""

    policy: GatePolicy
    width: int
    closed: Closure | None = None
    held: Mapping[str, Closure] = field(default_factory=dict)  # by namespace
    ticket: int = 0  # of the next POST
    era: int = 0  # the first ticket since the gate closed last
    under_way: int = 0  # POSTs of this era
    failures: int = 0  # in this era, since the latest healthy answer

    @classmethod
    def opened(cls, policy: GatePolicy) -> Gate:
        """As a replica begins: open, and as wide as it may be."""
        return cls(policy, policy.concurrency)

    # -- what may be done -----------------------------------------------------------------------------------------

    def permit(self, now: float, free: int) -> Permit | None:
        """What may be claimed next into `free` places; None: nothing before `look_at`, or before an answer."""
        held = tuple(sorted(self.held))
        if self.closed is not None:
            probe = free > 0 and self.under_way == 0 and now >= self.closed.look_at
            return Permit(1, held) if probe else None
        room = min(free, self.width - self.under_way - self.failures)
        if room <= 0:
            return None
        due = (name for name in held if not self.held[name].probing and now >= self.held[name].look_at)
        namespace = next(due, None)
        return Permit(room, held) if namespace is None else Permit(1, only=namespace)

    def look_at(self) -> float | None:
        """When time alone may change the permit; None when only an answer can."""
        if self.closed is not None:
            return self.closed.look_at if self.under_way == 0 else None
        return min((closure.look_at for closure in self.held.values() if not closure.probing), default=None)

    def shut_until(self, namespace: str | None) -> float | None:
        """When a request of that namespace may be tried again; None when the gate before it is open."""
        closures = (self.closed, self.held.get(namespace) if namespace is not None else None)
        return max((closure.look_at for closure in closures if closure is not None), default=None)

    def lets_through(self, post: Post, now: float) -> bool:
        """Whether nothing has closed before it since it was permitted, and nobody has asked for more time."""
        closure = self.held.get(post.namespace) if post.namespace is not None else None
        if post.ticket < self.era or (closure is not None and post.ticket < closure.ticket):
            return False
        return self.closed is None or now >= self.closed.look_at

    # -- what has happened ----------------------------------------------------------------------------------------

    def begun(self, permit: Permit) -> tuple[Gate, int]:
        """Its places are taken from before the claim, so that whatever closes meanwhile closes before them; the ticket
        of the POSTs that come of it."""
        gate = replace(self, under_way=self.under_way + permit.limit)
        if permit.only is not None:
            gate = _hold(gate, permit.only, replace(self.held[permit.only], probing=True))
        return gate, self.ticket

    def returned(self, permit: Permit, ticket: int, places: int, now: float) -> Gate:
        """Nothing was claimed for so many of its places."""
        gate = replace(self, under_way=self.under_way - places) if ticket >= self.era else self
        closure = self.held.get(permit.only) if permit.only is not None else None
        if places == 0 or permit.only is None or closure is None or ticket < closure.ticket:
            return gate
        return _hold(gate, permit.only, replace(closure, probing=False, look_at=now + NOTHING_TO_PROBE_S))

    def ended(self, post: Post, signal: Signal | None, now: float, spread: float) -> Gate:
        """Its outcome is known; no signal: it was not POSTed after all. `spread`, 0 to 1, is the jitter."""
        current = post.ticket >= self.era
        gate = replace(self, under_way=self.under_way - 1) if current else self
        if post.namespace is not None:
            gate = _ended_in_namespace(gate, post.namespace, post.ticket, signal, now, spread)
        match signal:
            case Limited(wait_s):
                return _limited(gate, wait_s, now, spread) if current else gate.not_before(wait_s or 0.0, now, spread)
            case Unclear(float(wait_s)):
                return _limited(gate, wait_s, now, spread) if current else gate.not_before(wait_s, now, spread)
            case Healthy() if current and (gate.closed is None or now >= gate.closed.look_at):
                wider = min(self.policy.concurrency, gate.width * 2)
                return replace(gate, closed=None, width=wider, failures=0)
            case Held(reason) if current and not (post.namespace is not None and reason in NAMESPACED):
                return _close(gate, reason, now, now + self.policy.probe.jittered(gate.refusals + 1, spread))
            case Unreachable() | Unclear() if current:
                return _failed(gate, now, spread)
        return gate

    def not_before(self, seconds: float, now: float, spread: float) -> Gate:
        """The hub has told others, or an earlier POST, that all should wait so long."""
        until = _later(now, seconds, spread)
        if self.closed is None:
            return _close(self, Reason.LIMITED, now, until)
        return replace(self, closed=replace(self.closed, look_at=max(until, self.closed.look_at)))

    @property
    def refusals(self) -> int:
        """How many there have been since the gate was open: what closed it, and each probe that failed."""
        return self.closed.probes + 1 if self.closed is not None else 0


def _later(now: float, seconds: float, spread: float) -> float:
    return now + min(seconds, MOST_WAIT_S) * (1 + LATER_SHARE * spread)


def _limited(gate: Gate, wait_s: float | None, now: float, spread: float) -> Gate:
    seconds = gate.policy.probe.delay(gate.refusals + 1) if wait_s is None else max(wait_s, LEAST_WAIT_S)
    return _close(gate, Reason.LIMITED, now, _later(now, seconds, spread))


def _failed(gate: Gate, now: float, spread: float) -> Gate:
    failures = gate.failures + 1
    if failures >= min(gate.policy.failures, gate.width):
        return _close(gate, Reason.FAILING, now, now + gate.policy.broken.jittered(gate.refusals + 1, spread))
    return replace(gate, failures=failures)


def _close(gate: Gate, reason: Reason, now: float, look_at: float) -> Gate:
    """Shut, or shut for longer: the latest reason is the one to mend, and no earlier promise to wait is broken."""
    if gate.closed is not None:
        later = max(look_at, gate.closed.look_at)
        return replace(gate, closed=replace(gate.closed, reason=reason, look_at=later, probes=gate.closed.probes + 1))
    ticket = gate.ticket + 1
    closure = Closure(reason, now, look_at, ticket)
    return replace(gate, closed=closure, ticket=ticket, era=ticket, under_way=0, width=1, failures=0)


def _hold(gate: Gate, namespace: str, closure: Closure | None) -> Gate:
    held = {name: other for name, other in gate.held.items() if name != namespace}
    return replace(gate, held=held if closure is None else {**held, namespace: closure})


def _ended_in_namespace(
    gate: Gate, namespace: str, ticket: int, signal: Signal | None, now: float, spread: float
) -> Gate:
    """A refusal closes the gate before the namespace; its probe opens it again, or closes it for longer."""
    closure = gate.held.get(namespace)
    refused = signal.reason if isinstance(signal, Held) and signal.reason in NAMESPACED else None
    if closure is None:
        if refused is None:
            return gate
        ticket = gate.ticket + 1
        look_at = now + gate.policy.probe.jittered(1, spread)
        return _hold(replace(gate, ticket=ticket), namespace, Closure(refused, now, look_at, ticket))
    if ticket < closure.ticket:
        return gate
    if isinstance(signal, Healthy):
        return _hold(gate, namespace, None)
    if signal is None:
        return _hold(gate, namespace, replace(closure, probing=False))
    probes = closure.probes + 1
    look_at = now + gate.policy.probe.jittered(probes + 1, spread)
    again = replace(closure, reason=refused or closure.reason, look_at=look_at, probes=probes, probing=False)
    return _hold(gate, namespace, again)
