"""Finds out what became of POSTs whose answer was lost, before any of them may be repeated.

One look serves all requests in doubt: the active generations of each namespace, and where that does not tell, the ended
ones of the models concerned. Found by content: adopted, each generation confirmed by a GET. Not found in two complete
looks that began after the grace: submitted again. What cannot be decided in time fails as `outcome_unknown`, which is
never repeated.

What remains possible: a hub that shows a generation later than the grace, and a submitter that was frozen between its
last look at its claim and the write of its POST. Both are paid twice, and both leave a line `generation.unowned` behind
(see `surplus.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.facts import Fact, FoundUpstream, NotFoundUpstream, Undecidable
from service.domain.matching import Doubt, Sighting, assign, concerning
from service.domain.patience import Patience
from service.domain.retry import Backoff
from service.domain.states import OutputStatus
from service.domain.submission import LOOKS
from service.telemetry import Metrics
from service.tracing import UNTRACED, Tracing
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.surplus import Surplus
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
Price = Callable[[str, Mapping[str, object]], float | None]  # of one generation: see `Catalogue.price`
AT_ONCE = 500
GETS_AT_ONCE = 16
SAMPLE = 5  # generations of ours that a list does not show and that are asked for one by one
LOOK_INTERVAL_S = 2.0
ENDED = (OutputStatus.SUCCEEDED, OutputStatus.FAILED, OutputStatus.CANCELLED)


@dataclass(slots=True)
class Look:
    """What the lists of one namespace showed of what is wanted, and whether they left something out."""

    wanted: Callable[[Sighting], bool]
    sightings: list[Sighting] = field(default_factory=list)
    complete: bool = True


class Doubts:
    """Resolves requests in doubt while this replica leads."""

    name = "doubts"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        settler: Settler,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        gap: Gap,
        surplus: Surplus,
        price: Price,
        grace_s: float,
        patience: Patience,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._store = store
        self._hub = hub
        self._settler = settler
        self._wakeups = wakeups
        self._metrics = metrics
        self._gap = gap
        self._surplus = surplus
        self._price = price
        self._grace = timedelta(seconds=grace_s)
        self._patience = patience
        self._tracing = tracing

    async def run(self) -> None:
        """Looks while there are doubts, until cancelled."""
        failures = 0
        while True:
            await self._wakeups.doubts.wait()
            self._wakeups.doubts.clear()
            try:
                await self.resolve(utc_now())
                failures = 0
            except (TransientError, HubRefusedKeyError) as error:
                failures += 1
                log.warning("doubts.not_resolved", reason=str(error), failures=failures)
            await asyncio.sleep(max(LOOK_INTERVAL_S, Backoff(limit=60).jittered(failures) if failures else 0.0))

    async def drain(self) -> None:
        """Nothing is held here: a look that is cut off is begun anew."""

    async def resolve(self, now: datetime) -> None:
        """One look for all that is in doubt at `now`."""
        doubts = await self._store.doubts(AT_ONCE)
        namespaces: dict[str | None, list[Doubt]] = {}
        for doubt in doubts:
            namespaces.setdefault(doubt.request.target_namespace, []).append(doubt)
        for namespace, members in namespaces.items():
            try:
                cases = await self._resolve_namespace(namespace, members, now)
            except (HubUnavailableError, HubRefusedKeyError) as error:
                log.warning("doubts.not_listed", namespace=namespace, reason=str(error))
                cases = []
            decided = {case.request_id for case in cases}
            late = [doubt for doubt in members if doubt.request.request_id not in decided and self._too_old(doubt, now)]
            fact = Undecidable("the hub's lists could not be read in time, or were never complete")
            cases += [Case(doubt.request.request_id, [fact]) for doubt in late]
            ended = await self._settler.settle(cases)
            self._metrics.completions.labels("look").inc(ended)
            self._tell(members, cases)

    def _tell(self, doubts: Sequence[Doubt], cases: Sequence[Case]) -> None:
        """What is written is counted, traced and looked after; before, a look that is repeated would tell it twice."""
        facts = {case.request_id: case.facts[0] for case in cases}
        for doubt in doubts:
            match facts.get(doubt.request.request_id):
                case FoundUpstream(generation_ids=ids) as fact:
                    outcome = "adopted"
                    for generation_id in ids:  # it may have ended since it was confirmed
                        self._gap.stored(generation_id, doubt.attempted_at)
                    price = self._price(doubt.request.model, doubt.parameters)
                    self._metrics.spend(doubt.request.model, len(ids), price)
                case Undecidable() as fact:
                    outcome = "undecided"
                case NotFoundUpstream(look=look) as fact if look >= LOOKS:
                    outcome = "submitted_again"
                case _:
                    continue
            self._metrics.doubts.labels(outcome).inc()
            if self._tracing.on:
                self._tracing.doubt_resolved(doubt, fact)

    def _too_old(self, doubt: Doubt, now: datetime) -> bool:
        return now - doubt.doubted_at > self._grace + self._patience.doubt

    async def _resolve_namespace(self, namespace: str | None, doubts: Sequence[Doubt], now: datetime) -> list[Case]:
        look = Look(concerning(doubts))
        await self._list(look, namespace)
        found = await self._assign(doubts, look)
        if any(len(found.get(doubt.request.request_id, ())) < doubt.request.num_generations for doubt in doubts):
            for model in sorted({doubt.request.model for doubt in doubts}):
                for status in ENDED:
                    await self._list(look, namespace, model, status)
            found = await self._assign(doubts, look)
        unseen = [doubt for doubt in doubts if doubt.request.request_id not in found]
        if look.complete and any(self._grace_is_over(doubt, now) for doubt in unseen):
            look.complete = not await self._leaves_out(namespace)
        turn = asyncio.Semaphore(GETS_AT_ONCE)

        async def case(doubt: Doubt) -> Case:
            async with turn:
                ids = found.get(doubt.request.request_id, ())
                return Case(doubt.request.request_id, await self._facts(doubt, ids, now, complete=look.complete))

        return [case for case in await asyncio.gather(*map(case, doubts)) if case.facts]

    def _grace_is_over(self, doubt: Doubt, now: datetime) -> bool:
        return now - doubt.doubted_at >= self._grace

    async def _leaves_out(self, namespace: str | None) -> bool:
        """Whether the list of active generations lacks some that are: then it is partial, whatever its count says."""
        in_flight = await self._store.in_flight()
        known = next((part.generation_ids for part in in_flight if part.namespace == namespace), ())
        absent = (await self._hub.active(namespace, known)).missing[:SAMPLE] if known else ()
        reports = [await self._hub.generation(generation_id) for generation_id in absent]
        left_out = any(report is not None and not report.status.ended for report in reports)
        if left_out:
            log.warning("doubts.list_partial", namespace=namespace)
        return left_out

    async def _list(
        self, look: Look, namespace: str | None, model: str | None = None, status: OutputStatus | None = None
    ) -> None:
        shown = await self._hub.sightings(namespace, look.wanted, model, status)
        look.sightings += shown.sightings
        look.complete = look.complete and shown.complete

    async def _assign(self, doubts: Sequence[Doubt], look: Look) -> Mapping[str, tuple[str, ...]]:
        """Candidates by content, those left out that are outputs of ours already."""
        candidates = assign(doubts, look.sightings, ())
        if not candidates:
            return {}
        prompts = {str(doubt.parameters.get("prompt")) for doubt in doubts}
        alike = [s.generation_id for s in look.sightings if str(s.parameters.get("prompt")) in prompts]
        owned = await self._store.owned(alike)
        return assign(doubts, look.sightings, owned) if owned else candidates

    async def _facts(self, doubt: Doubt, found: Sequence[str], now: datetime, *, complete: bool) -> list[Fact]:
        """What this look says of one doubt; nothing while it is too early, or the lists left something out."""
        over = complete and self._grace_is_over(doubt, now)
        if found and (over or len(found) == doubt.request.num_generations or self._too_old(doubt, now)):
            return await self._confirmed(found)
        if not found and over:
            look = doubt.request.doubt_looks + 1
            if look >= LOOKS:
                self._surplus.watch(doubt)
            return [NotFoundUpstream(doubt.request.attempts, look)]
        return []

    async def _confirmed(self, found: Sequence[str]) -> list[Fact]:
        """A list is believed when a GET of each says the same; else it is looked at again."""
        try:
            reports = [await self._hub.generation(generation_id) for generation_id in found]
        except HubUnavailableError as error:
            log.warning("doubts.not_confirmed", generation_id=list(found), reason=str(error))
            return []
        confirmed = [report for report in reports if report is not None]
        if len(confirmed) < len(found):
            return []
        return [FoundUpstream(tuple(found)), *confirmed]
