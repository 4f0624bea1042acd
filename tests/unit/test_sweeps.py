"""A sweep that did not do what it was asked for is done again soon, not at the next interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from service.domain.errors import HubUnavailableError
from service.domain.facts import OutputReported
from service.domain.patience import Patience
from service.domain.retry import Backoff
from service.domain.states import InFlight, OutputStatus
from service.domain.upstream import Listing
from service.supervisor import Supervisor
from service.telemetry import Metrics
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.reconciler import Reconciler
from service.workers.settler import Settler
from service.workers.wakeups import Wakeups

pytestmark = pytest.mark.asyncio
MISSED = ("g-1", "g-2", "g-3")


class World:
    """Three generations that ended unheard; the first look at them, or the first question, fails."""

    def __init__(self, *, breaks: BaseException | None = None, unanswered: int = 0) -> None:
        self._breaks = breaks
        self._unanswered = unanswered
        self.ended: set[str] = set()
        self.swept = asyncio.Event()
        store, hub, settler, metrics = cast("Store", self), cast("Hub", self), cast("Settler", self), Metrics()
        gap = Gap(store, hub, settler, metrics, patience=Patience())
        self.reconciler = Reconciler(store, hub, settler, gap, Wakeups(), metrics, interval_s=3600)

    async def matched_orphans(self, _: int) -> list[OutputReported]:
        return []

    async def in_flight(self) -> list[InFlight]:
        if self._breaks is not None:
            breaks, self._breaks = self._breaks, None
            raise breaks
        return [InFlight(None, MISSED, ())]

    async def active(self, _: str | None, known: Sequence[str]) -> Listing:
        return Listing(tuple(known), complete=True)

    async def generation(self, generation_id: str) -> OutputReported:
        if self._unanswered:
            self._unanswered -= 1
            raise HubUnavailableError("It did not answer.")
        return OutputReported(generation_id, OutputStatus.SUCCEEDED)

    async def settle_reports(self, reports: Sequence[OutputReported]) -> int:
        self.ended |= {report.generation_id for report in reports}
        if self.ended == set(MISSED):
            self.swept.set()
        return len(reports)

    async def settle_outputs(self, _: Sequence[object]) -> tuple[list[object], int]:
        return [], 0


@asynccontextmanager
async def supervised(reconciler: Reconciler) -> AsyncIterator[None]:
    """It runs, and is begun anew when it breaks."""
    supervisor = Supervisor([reconciler], restart=Backoff(first=0.01, limit=0.01))
    supervisor.start()
    try:
        yield
    finally:
        await supervisor.end()


@pytest.mark.parametrize("breaks", [RuntimeError("a defect"), asyncio.CancelledError("by a driver")])
async def test_a_sweep_that_breaks_is_not_forgotten(breaks: BaseException) -> None:
    world = World(breaks=breaks)
    world.reconciler.request_sweep("the stream was opened")
    async with asyncio.timeout(10), supervised(world.reconciler):
        await world.swept.wait()


async def test_one_generation_that_could_not_be_asked_for_is_asked_for_again() -> None:
    world = World(unanswered=1)
    world.reconciler.request_sweep("the stream was opened")
    async with asyncio.timeout(10), supervised(world.reconciler):
        await world.swept.wait()
