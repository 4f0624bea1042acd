"""What holds for the gate whatever the hub answers, in any order, at any time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.domain.gate import (
    MOST_WAIT_S,
    Gate,
    GatePolicy,
    Healthy,
    Held,
    Limited,
    Permit,
    Post,
    Reason,
    Signal,
    Unclear,
    Unreachable,
)

NAMESPACES = (None, None, "acme", "globex")
seconds = st.floats(0, 2 * MOST_WAIT_S, allow_nan=False)
spreads = st.floats(0, 1, allow_nan=False)
signals: st.SearchStrategy[Signal | None] = st.one_of(
    st.just(Healthy()),
    st.builds(Limited, st.none() | seconds),
    st.builds(Held, st.sampled_from([r for r in Reason if r not in (Reason.LIMITED, Reason.FAILING)])),
    st.just(Unreachable()),
    st.builds(Unclear, st.none() | seconds),
    st.none(),
)


@dataclass
class Claim:
    """A claim under way."""

    permit: Permit
    ticket: int


@dataclass
class Hub:
    """What a correct replica may know of the hub: what it was asked to wait for."""

    not_before: float = 0.0
    under_way: list[Post] = field(default_factory=list)


class GateMachine(RuleBasedStateMachine):
    """A replica in fast motion: claims, POSTs, answers and the passing of time, as they fall."""

    @initialize(concurrency=st.integers(1, 20))
    def begin(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.gate = Gate.opened(GatePolicy(concurrency))
        self.now = 0.0
        self.hub = Hub()
        self.claim: Claim | None = None

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(passed=st.floats(0, 20, allow_nan=False))
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule()
    def time_passes_to_the_next_look(self) -> None:
        look_at = self.gate.look_at()
        if look_at is not None:
            self.now = max(self.now, look_at)

    @rule()
    def a_claim_begins(self) -> None:
        permit = self.gate.permit(self.now, self.concurrency - len(self.hub.under_way)) if self.claim is None else None
        if permit is None:
            return
        assert permit.limit >= 1
        if self.gate.closed is not None:
            assert permit.limit == 1
        self.gate, ticket = self.gate.begun(permit)
        self.claim = Claim(permit, ticket)

    @rule(share=st.floats(0, 1), namespaces=st.lists(st.sampled_from(NAMESPACES), min_size=20, max_size=20))
    def the_claim_ends(self, share: float, namespaces: list[str | None]) -> None:
        """With as many as were found; those are POSTed at once, if the gate has not closed meanwhile."""
        if self.claim is None:
            return
        permit, ticket, self.claim = self.claim.permit, self.claim.ticket, None
        found = [permit.only or name for name in namespaces if permit.only or name not in permit.held]
        taken = found[: round(share * permit.limit)]
        self.gate = self.gate.returned(permit, ticket, permit.limit - len(taken), self.now)
        for name in taken:
            post = Post(ticket, name)
            if not self.gate.lets_through(post, self.now):
                self.gate = self.gate.ended(post, None, self.now, 0.0)
                continue
            assert self.now >= self.hub.not_before, "a POST before the time that the hub asked for"
            self.hub.under_way.append(post)

    @rule(signal=signals, spread=spreads, which=st.integers(0, 100))
    def an_answer_comes(self, signal: Signal | None, spread: float, which: int) -> None:
        if not self.hub.under_way:
            return
        post = self.hub.under_way.pop(which % len(self.hub.under_way))
        if isinstance(signal, Limited | Unclear) and signal.wait_s is not None:
            self.hub.not_before = max(self.hub.not_before, self.now + min(signal.wait_s, MOST_WAIT_S))
        before = self.gate
        self.gate = before.ended(post, signal, self.now, spread)
        if before.closed is not None and self.gate.closed is None:
            assert isinstance(signal, Healthy)
            assert post.ticket >= before.closed.ticket
        for name in set(before.held) - set(self.gate.held):
            assert isinstance(signal, Healthy)
            assert post.namespace == name

    @rule(wait_s=seconds, spread=spreads)
    def another_replica_was_told_to_wait(self, wait_s: float, spread: float) -> None:
        self.gate = self.gate.not_before(wait_s, self.now, spread)
        self.hub.not_before = max(self.hub.not_before, self.now + min(wait_s, MOST_WAIT_S))

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def no_more_are_under_way_than_the_gate_is_wide(self) -> None:
        reserved = self.claim.permit.limit if self.claim is not None and self.claim.ticket >= self.gate.era else 0
        known = sum(post.ticket >= self.gate.era for post in self.hub.under_way) + reserved
        assert self.gate.under_way == known
        assert known + self.gate.failures <= self.gate.width <= self.concurrency
        assert len(self.hub.under_way) <= self.concurrency

    @invariant()
    def a_closed_gate_has_one_probe_at_most(self) -> None:
        if self.gate.closed is not None:
            assert self.gate.under_way <= 1

    @invariant()
    def there_is_always_something_to_wait_for(self) -> None:
        """A permit now, an answer that will come, or a moment to look again: never a gate that is shut for good."""
        if self.claim is not None or self.hub.under_way:
            return
        if self.gate.permit(self.now, self.concurrency) is None:
            look_at = self.gate.look_at()
            assert look_at is not None
            assert self.now < look_at <= self.now + MOST_WAIT_S * 1.25
            assert self.gate.permit(look_at, self.concurrency) is not None

    def teardown(self) -> None:
        """Once the hub answers well, it is all as wide as ever: within twice as many answers as there are places."""
        if not hasattr(self, "gate"):
            return
        if self.claim is not None:
            self.gate = self.gate.returned(self.claim.permit, self.claim.ticket, self.claim.permit.limit, self.now)
        for post in self.hub.under_way:
            self.gate = self.gate.ended(post, Healthy(), self.now, 0.0)
        for _ in range(2 * self.concurrency + len(NAMESPACES)):
            look_at = self.gate.look_at()
            self.now = max(self.now, look_at) if look_at is not None else self.now
            permit = self.gate.permit(self.now, self.concurrency)
            assert permit is not None
            self.gate, ticket = self.gate.begun(permit)
            self.gate = self.gate.returned(permit, ticket, permit.limit - 1, self.now)
            self.gate = self.gate.ended(Post(ticket, permit.only), Healthy(), self.now, 0.0)
        assert self.gate.permit(self.now, self.concurrency) == Permit(self.concurrency)


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
