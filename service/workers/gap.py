"""Completions that nobody heard: told before the ids were stored, or while no stream was open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import OutputMissing, OutputReported
from service.domain.patience import Patience
from service.domain.retry import Backoff
from service.supervisor import run_together
from service.telemetry import Metrics
from service.workers.batches import Batches
from service.workers.ports import Hub, Store
from service.workers.settler import Settler

log = structlog.get_logger(__name__)
PACE_S = 0.1  # off the way of a result: few generations end before their POST is answered
TRIES = 3
RETRY = Backoff(first=1.0, limit=4.0)


@dataclass(slots=True)
class Fetched:
    """What became of single GETs: reports, generations that the hub does not know, and those it could not be asked."""

    reports: list[OutputReported] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def active(self) -> set[str]:
        """What the hub still works on."""
        return {report.generation_id for report in self.reports if not report.status.ended}


class Gap:
    """Closes gaps by asking for single generations; `turn` bounds how many are asked for at a time.

    Apart from the outcomes of POSTs, and what was heard apart from what is to be asked for: neither must wait for a hub
    that answers slowly. All that is handed over is looked at before a drain is over: nobody else knows of it, and it
    would wait for the next sweep.
    """

    name = "gap"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        settler: Settler,
        metrics: Metrics,
        *,
        patience: Patience,
        concurrency: int = 16,
    ) -> None:
        self._store = store
        self._hub = hub
        self._settler = settler
        self._metrics = metrics
        self._patience = patience
        self.turn = asyncio.Semaphore(concurrency)
        self._stored: Batches[tuple[str, datetime]] = Batches("gaps", self._apply_heard, metrics=metrics, pace_s=PACE_S)
        self._unheard: Batches[str] = Batches("unheard", self._ask_for, metrics=metrics)
        self._unanswered: Batches[str] = Batches("unanswered", self._ask_again, metrics=metrics)

    def stored(self, generation_id: str, began_at: datetime) -> None:
        """Hands over a generation that was stored just now, and when the attempt began that made it; never waits."""
        self._stored.add((generation_id, began_at))

    async def run(self) -> None:
        """Looks at what was stored until cancelled."""
        await run_together(self._stored.run(), self._unheard.run(), self._unanswered.run())

    async def drain(self) -> None:
        """Waits until all that was handed over has been looked at."""
        await self._stored.drain()
        await self._unheard.drain()
        await self._unanswered.drain()

    async def _apply_heard(self, batch: Sequence[tuple[str, datetime]]) -> None:
        """Applies what the stream said too early; of an attempt that began before the stream's present opening, the hub
        is asked."""
        opened_at, heard = await self._store.heard_of([key for key, _ in batch])
        if heard:
            self._metrics.completions.labels("stream").inc(await self._settler.settle_reports(heard))
        told = {report.generation_id for report in heard}
        for key, began_at in batch:
            if opened_at is not None and began_at < opened_at and key not in told:
                self._unheard.add(key)

    async def _ask_for(self, generation_ids: Sequence[str]) -> None:
        for generation_id in (await self.fetch(generation_ids)).failed:
            self._unanswered.add(generation_id)

    async def _ask_again(self, generation_ids: Sequence[str]) -> None:
        """A few times, apart from those that are asked for the first time; then the next sweep will."""
        for failures in range(1, TRIES):
            await asyncio.sleep(RETRY.jittered(failures))
            generation_ids = (await self.fetch(generation_ids)).failed
            if not generation_ids:
                return
        log.warning("gap.left_to_sweep", size=len(generation_ids), tries=TRIES)

    async def fetch(self, generation_ids: Iterable[str], *, by: str = "look") -> Fetched:
        """Asks for each and applies the answers; who cannot be asked now is for the caller. `by`: as what the ends that
        are learned so are counted."""
        fetched = Fetched()
        await asyncio.gather(*(self._ask(generation_id, fetched) for generation_id in generation_ids))
        self._metrics.completions.labels(by).inc(await self._settler.settle_reports(fetched.reports))
        now = utc_now()
        await self._settler.settle_outputs(
            [OutputMissing(generation_id, now, self._patience.missing) for generation_id in fetched.missing]
        )
        return fetched

    async def _ask(self, generation_id: str, fetched: Fetched) -> None:
        async with self.turn:
            try:
                answer = await self._hub.generation(generation_id)
            except (HubUnavailableError, HubRefusedKeyError) as error:
                log.warning("generation.not_fetched", generation_id=generation_id, reason=str(error))
                fetched.failed.append(generation_id)
                return
        self._metrics.fetched.inc()
        if answer is None:
            log.warning("generation.unknown_to_hub", generation_id=generation_id)
            fetched.missing.append(generation_id)
        else:
            fetched.reports.append(answer)
