"""Ends that we asked for say nothing of the stream, and are counted apart from those that looks have found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import pytest

from service.domain.facts import OutputReported
from service.domain.patience import Patience
from service.domain.states import Request, RequestState
from service.telemetry import Metrics
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.stopper import Stopper
from service.workers.wakeups import Wakeups
from tests.unit.builders import NOW, a_request, cancelled

pytestmark = pytest.mark.asyncio


class World:
    """One request that is to end, and a hub that ends its generation when asked."""

    def __init__(self) -> None:
        self._stopping = [a_request(RequestState.SUBMITTED)]

    async def stopping(self, _: int, __: datetime) -> list[Request]:
        return [self._stopping.pop()] if self._stopping else []

    async def cancel(self, _: str) -> None: ...

    async def generation(self, generation_id: str) -> OutputReported:
        return cancelled(generation_id)

    async def settle(self, _: Sequence[Case]) -> int:
        return 0

    async def settle_reports(self, reports: Sequence[OutputReported]) -> int:
        return len(reports)

    async def settle_outputs(self, _: Sequence[object]) -> tuple[list[object], int]:
        return [], 0


async def test_what_ends_by_a_stop_is_not_counted_as_missed_by_the_stream() -> None:
    world, metrics, patience = World(), Metrics(), Patience()
    store, hub, settler = cast("Store", world), cast("Hub", world), cast("Settler", world)
    gap = Gap(store, hub, settler, metrics, patience=patience)
    await Stopper(store, hub, settler, gap, Wakeups(), patience=patience).stop(NOW)
    counted = [metrics.registry.get_sample_value("drover_completions_total", {"by": by}) for by in ("stop", "look")]
    assert counted == [1.0, 0.0]
