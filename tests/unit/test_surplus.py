"""What nobody owns is ended at the hub; what has just found its owner never is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import pytest
from msgspec.structs import replace

from service.domain.patience import Patience
from service.domain.states import Output, Request, RequestState
from service.domain.upstream import Sightings
from service.telemetry import Metrics
from service.workers.ports import Hub, Store
from service.workers.surplus import Surplus
from tests.unit.builders import a_request
from tests.unit.test_doubts import a_doubt, a_sighting

pytestmark = pytest.mark.asyncio


class World:
    """A hub that shows g0, and a store that is asked about it. `answers` is what the request looks like at each
    question: the answer of its POST may be written between any two."""

    def __init__(self, *answers: Request) -> None:
        self._answers = list(answers)
        self.cancelled: list[str] = []

    def _now(self) -> Request:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def owned(self, generation_ids: Sequence[str]) -> dict[str, str]:
        outputs = {output.generation_id for output in self._now().outputs}
        return {key: "r-1" for key in generation_ids if key in outputs}

    async def load(self, _: Sequence[str]) -> dict[str, Request]:
        return {"r-1": self._now()}

    async def sightings(self, *_: object) -> Sightings:
        return Sightings((a_sighting("g0"),), complete=True)

    async def cancel(self, generation_id: str) -> None:
        self.cancelled.append(generation_id)

    async def looked_at(self) -> list[str]:
        """What the hub was asked to end."""
        patience = Patience(surplus=timedelta(seconds=60))
        surplus = Surplus(cast("Store", self), cast("Hub", self), Metrics(), patience=patience)
        surplus.watch(a_doubt("r-1"))
        await surplus.look()
        return self.cancelled


UNDER_WAY = a_request(RequestState.SUBMITTING, attempts=2)
WITH_G0 = a_request(RequestState.SUBMITTED, attempts=2)
WITH_ANOTHER = replace(WITH_G0, outputs=(Output(0, "g1"),))


async def test_a_second_generation_of_a_request_that_has_its_own_is_ended() -> None:
    assert await World(WITH_ANOTHER).looked_at() == ["g0"]


async def test_the_generation_of_an_attempt_under_way_is_left_alone() -> None:
    assert await World(UNDER_WAY).looked_at() == []


async def test_a_generation_whose_ids_are_stored_while_it_is_judged_is_left_alone() -> None:
    assert await World(UNDER_WAY, WITH_G0).looked_at() == []
    assert await World(UNDER_WAY, UNDER_WAY, WITH_G0).looked_at() == []
