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
from service.telemetry import Metrics
from service.workers.batches import Batches
from service.workers.ports import Hub, Store
from service.workers.settler import Settler

log = structlog.get_logger(__name__)
PACE_S = 0.1  # off the way of a result: few generations end before their POST is answered


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

    Apart from the outcomes of POSTs, which must not wait for a hub that answers slowly. What is handed over is looked
    at before a drain is over: nobody else knows of it, and it would wait for the next sweep.
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
        self._stored: Batches[tuple[str, datetime]] = Batches("gaps", self._close, metrics=metrics, pace_s=PACE_S)

    def stored(self, generation_id: str, began_at: datetime) -> None:
        """Hands over a generation that was stored just now, and when the attempt began that made it; never waits."""
        self._stored.add((generation_id, began_at))

    async def run(self) -> None:
        """Looks at what was stored until cancelled."""
        await self._stored.run()

    async def drain(self) -> None:
        """Waits until all that was handed over has been looked at."""
        await self._stored.drain()

    async def _close(self, batch: Sequence[tuple[str, datetime]]) -> None:
        """Applies what the stream said too early, and asks for those whose attempt began before the stream's present
        opening, once."""
        begun = dict(batch)
        opened_at, heard = await self._store.heard_of(list(begun))
        if heard:
            self._metrics.completions.labels("stream").inc(await self._settler.settle_reports(heard))
        told = {report.generation_id for report in heard}
        if opened_at is not None:
            unheard = [key for key, began in begun.items() if began < opened_at and key not in told]
            await self.fetch(unheard)

    async def fetch(self, generation_ids: Iterable[str], *, by: str = "look") -> Fetched:
        """Asks for each and applies the answers. What cannot be asked now is left to the next sweep. `by`: as what the
        ends that are learned so are counted."""
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
