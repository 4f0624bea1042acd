"""What looks find is counted when it is written: a look that is done again tells it once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import pytest

from service.domain.errors import DatabaseUnavailableError
from service.domain.facts import OutputReported
from service.domain.patience import Patience
from service.domain.states import OutputStatus
from service.domain.upstream import Sightings
from service.telemetry import Metrics
from service.workers.doubts import Doubts
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.surplus import Surplus
from service.workers.wakeups import Wakeups
from tests.unit.builders import NOW
from tests.unit.test_doubts import a_doubt, a_sighting

pytestmark = pytest.mark.asyncio
DOUBT = a_doubt()


class World:
    """A request in doubt, a hub that shows its generation or nothing, and a database that takes the second write."""

    def __init__(self, *, shows: bool) -> None:
        self._shown = (a_sighting(),) if shows else ()
        self._writes = 0

    async def doubts(self, _: int) -> list[object]:
        return [DOUBT]

    async def owned(self, _: Sequence[str]) -> dict[str, str]:
        return {}

    async def in_flight(self) -> list[object]:
        return []

    async def sightings(self, *_: object) -> Sightings:
        return Sightings(self._shown, complete=False)

    async def generation(self, generation_id: str) -> OutputReported:
        return OutputReported(generation_id, OutputStatus.QUEUED)

    async def settle(self, _: Sequence[Case]) -> int:
        self._writes += 1
        if self._writes == 1:
            raise DatabaseUnavailableError("not now")
        return 0

    async def counted(self, outcome: str) -> tuple[float | None, float | None]:
        """After a look that could not be written and one that was: doubts of that outcome, and dollars."""
        metrics, patience = Metrics(), Patience()
        store, hub, settler = cast("Store", self), cast("Hub", self), cast("Settler", self)
        doubts = Doubts(
            store,
            hub,
            settler,
            Wakeups(),
            metrics,
            gap=Gap(store, hub, settler, metrics, patience=patience),
            surplus=Surplus(store, hub, metrics, patience=patience),
            price=lambda _model, _parameters: 0.5,
            grace_s=1.0,
            patience=patience,
        )
        late = NOW + patience.doubt + timedelta(seconds=2)
        with pytest.raises(DatabaseUnavailableError):
            await doubts.resolve(late)
        await doubts.resolve(late)
        spent = metrics.registry.get_sample_value(
            "drover_cost_dollars_total", {"model": "ltx-2-3-quality-text-to-video"}
        )
        return metrics.registry.get_sample_value("drover_doubts_total", {"outcome": outcome}), spent


async def test_a_generation_that_is_adopted_is_counted_and_paid_for_once() -> None:
    assert await World(shows=True).counted("adopted") == (1.0, 0.5)


async def test_a_request_that_stays_undecided_is_counted_once() -> None:
    assert await World(shows=False).counted("undecided") == (1.0, None)
