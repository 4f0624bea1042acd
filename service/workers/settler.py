"""Applies facts to requests: load, decide, write under the version guard; who lost a race reads and decides anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import structlog
from msgspec.structs import replace

from service.clock import utc_now
from service.domain.decisions import Decision
from service.domain.errors import ErrorCode, TransientError
from service.domain.facts import Fact, FoundUpstream, HubAccepted, HubRefused, OutputFact, OutputReported
from service.domain.lifecycle import decide
from service.domain.states import Fault, Request, RequestState
from service.telemetry import Metrics
from service.tracing import UNTRACED, Tracing
from service.wire.events import encode_emissions
from service.workers.ports import EventStore, Store
from service.workers.snapshots import Snapshots
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
OutputFactT = TypeVar("OutputFactT", bound=OutputFact)
FOREIGN = Fault(ErrorCode.OUTCOME_UNKNOWN, "The hub answered with a generation that belongs to another request.")
MAX_ROUNDS = 20  # a request whose version changes under twenty decisions in a row is a defect, not a race


@dataclass(slots=True)
class Case:
    """Facts about one request; `snapshot` spares a read while nobody else has written it."""

    request_id: str
    facts: list[Fact]
    snapshot: Request | None = field(default=None)


class Settler:
    """The one way in which a fact becomes a change of state, its events and its line in the log."""

    def __init__(
        self,
        store: Store,
        events: EventStore,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        elsewhere: Elsewhere,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._store = store
        self._events = events
        self._wakeups = wakeups
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._generating = metrics.stage("generating")
        self._tracing = tracing
        self._snapshots = Snapshots()
        self._unconfirmed: dict[str, Decision] = {}  # writes whose answer was lost; the next look tells what became

    async def settle(self, cases: Sequence[Case]) -> int:
        """Applies every fact; answers how many generations ended by that. DatabaseUnavailableError leaves it to the
        caller to repeat the whole, which is safe."""
        now, ended = utc_now(), 0
        waiting = list(_merged(cases))
        for round_ in range(MAX_ROUNDS):
            if not waiting:
                return ended
            if round_:  # not written: changed meanwhile, or somebody else's generation
                await self._refuse_foreign(waiting)
            await self._load(waiting)
            decisions = []
            for case in waiting:
                self._confirm(case)
                decision = decide(case.snapshot, case.facts, now) if case.snapshot is not None else None
                if decision is not None:
                    decisions.append((case, decision))
                else:
                    self._note_unowned(case)
            waiting, written = await self._write(decisions, now)
            ended += written
        if not waiting:
            return ended
        for case in waiting:
            log.error("request.contended", request_id=case.request_id, rounds=MAX_ROUNDS)
        raise TransientError(f"{len(waiting)} requests changed under every decision about them.")

    async def _refuse_foreign(self, cases: Sequence[Case]) -> None:
        """A generation belongs to one request. A hub that answers a POST with one that another request has already
        leaves it open what was bought, and asking again would bring the same answer. One that was found in doubt, and
        that another request has taken meanwhile, was not this one's: the next look tells."""
        given = [*accepted_ids(cases), *_found_ids(cases)]
        owners = await self._store.owned(given) if given else {}
        for case in cases:
            ids = [*accepted_ids([case]), *_found_ids([case])]
            foreign = [key for key in ids if owners.get(key, case.request_id) != case.request_id]
            if foreign:
                log.error("generation.foreign", request_id=case.request_id, generation_id=foreign)
                case.facts = [
                    HubRefused(FOREIGN, fact.attempt) if isinstance(fact, HubAccepted) else fact
                    for fact in case.facts
                    if not isinstance(fact, FoundUpstream)
                ]

    async def settle_reports(self, reports: Sequence[OutputReported]) -> int:
        """Applies the ends that the stream told; those of unknown generations are kept as orphans. Answers how many
        generations have ended by that."""
        unknown, ended = await self.settle_outputs([report for report in reports if report.status.ended])
        if unknown:
            await self._store.insert_orphans(unknown, utc_now())
            # Whoever stored the ids meanwhile looked for orphans before these were there: look once more.
            ended += (await self.settle_outputs(unknown))[1]
        return ended

    async def settle_outputs(self, facts: Sequence[OutputFactT]) -> tuple[list[OutputFactT], int]:
        """Applies facts about generations that are stored; answers those about others, and how many have ended."""
        if not facts:
            return [], 0
        of = _by_generation(self._snapshots.owners(fact.generation_id for fact in facts))
        if missing := [fact.generation_id for fact in facts if fact.generation_id not in of]:
            of |= _by_generation(await self._store.load_owners(missing))
        known: dict[str, Case] = {}
        for fact in facts:
            if (request := of.get(fact.generation_id)) is not None:
                known.setdefault(request.request_id, Case(request.request_id, [], request)).facts.append(fact)
        ended = await self.settle(list(known.values()))
        return [fact for fact in facts if fact.generation_id not in of], ended

    async def _load(self, cases: Sequence[Case]) -> None:
        missing = [case.request_id for case in cases if case.snapshot is None]
        if missing:
            found = await self._store.load(missing)
            for case in cases:
                case.snapshot = case.snapshot or found.get(case.request_id)

    async def _write(self, decisions: Sequence[tuple[Case, Decision]], now: datetime) -> tuple[list[Case], int]:
        """Writes what was decided; answers the cases that somebody else has changed meanwhile, and how many generations
        have ended."""
        if not decisions:
            return [], 0
        try:
            written = await self._store.apply(
                [(decision, encode_emissions(decision.emissions, now)) for _, decision in decisions], now
            )
        except TransientError:  # it may be written all the same
            self._unconfirmed |= {case.request_id: decision for case, decision in decisions}
            raise
        if any(decision.emissions for _, decision in decisions):
            if any(decision.after.state.ended for _, decision in decisions):
                self._wakeups.ends.set()
            self._wakeups.events.set()
            await self._elsewhere.wake_relay()
        lost, ended = [], 0
        for case, decision in decisions:
            if case.request_id in written:
                self._unconfirmed.pop(case.request_id, None)
                self._record(decision)
                if self._elsewhere.leading:  # the one that hears of ends
                    self._snapshots.keep(replace(decision.after, version=decision.before.version + 1))
                ended += sum(output.status.ended for output in decision.outputs)
            else:
                case.snapshot = None
                lost.append(case)
        return lost, ended

    def _note_unowned(self, case: Case) -> None:
        """Generations that the hub accepted for a request that can take them no more: paid for, so never silent."""
        owned = {output.generation_id for output in case.snapshot.outputs} if case.snapshot is not None else set()
        if unowned := [generation_id for generation_id in accepted_ids([case]) if generation_id not in owned]:
            self._metrics.unowned.labels("answered_late").inc(len(unowned))
            cause = "its POST was answered after the request had been submitted again, or had ended"
            log.error("generation.unowned", request_id=case.request_id, generation_id=unowned, cause=cause)

    def _confirm(self, case: Case) -> None:
        """Records the change that a write made whose answer was lost: nobody else would."""
        decision, snapshot = self._unconfirmed.get(case.request_id), case.snapshot
        if decision is None or snapshot is None or snapshot.version == decision.before.version:
            return
        del self._unconfirmed[case.request_id]
        if snapshot.version == decision.before.version + 1 and snapshot.state is decision.after.state:
            self._record(decision)

    def _record(self, decision: Decision) -> None:
        """One line and one count for each change of state."""
        before, after = decision.before, decision.after
        if before.state is after.state:
            return
        self._metrics.transitions.labels(after.state.value).inc()
        if after.finished_at is not None and after.submitted_at is not None:
            self._generating((after.finished_at - after.submitted_at).total_seconds())
        if self._tracing.on and after.state.ended:
            self._tracing.ended(after)
        if after.state is RequestState.CANCELLING:
            self._wakeups.stops.set()
        fields: dict[str, object] = {"request_id": after.request_id, "source": after.source}
        if after.outputs:
            fields["generation_id"] = [output.generation_id for output in after.outputs]
        if after.error is not None:
            fields["code"] = after.error.code.value
        if decision.reason is not None:
            fields["reason"] = decision.reason
        if after.state is RequestState.ACCEPTED:  # nothing that needs attention looks like success
            log.warning("request.requeued", was=before.state.value, attempts=after.attempts, **fields)
            return
        event = "request." + after.state.value
        log.info(event, was=before.state.value, attempts=after.attempts, **fields)


class Elsewhere:
    """Wakes the relay of the leading replica, when that is not this one: one NOTIFY a commit, never one a row."""

    def __init__(self, events: EventStore) -> None:
        self._events = events
        self.leading = False  # the leadership sets it

    async def wake_relay(self) -> None:
        """A lost wake-up costs a second, so a failure here is only noted."""
        if self.leading:
            return
        try:
            await self._events.notify()
        except TransientError as error:
            log.debug("relay.not_woken", reason=str(error))


def _merged(cases: Iterable[Case]) -> Iterable[Case]:
    """One case a request: a statement must not write a row twice."""
    merged: dict[str, Case] = {}
    for case in cases:
        if (known := merged.get(case.request_id)) is None:
            merged[case.request_id] = Case(case.request_id, list(case.facts), case.snapshot)
        else:
            known.facts.extend(case.facts)
    return merged.values()


def _by_generation(owners: Mapping[str, Request]) -> dict[str | None, Request]:
    """Requests by the ids of their generations."""
    return {output.generation_id: request for request in owners.values() for output in request.outputs}


def _found_ids(cases: Iterable[Case]) -> list[str]:
    """The generation ids that were found for requests in doubt."""
    return [
        key for case in cases for fact in case.facts if isinstance(fact, FoundUpstream) for key in fact.generation_ids
    ]


def accepted_ids(cases: Iterable[Case]) -> list[str]:
    """The generation ids that the hub has just given."""
    return [
        generation_id
        for case in cases
        for fact in case.facts
        if isinstance(fact, HubAccepted)
        for generation_id in fact.generation_ids
    ]
