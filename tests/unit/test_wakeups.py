"""The pulse: work that nobody here was told of is noticed, and a database that is away costs one look."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from service.domain.errors import DatabaseUnavailableError
from service.domain.messages import Pending
from service.supervisor import Component
from service.workers.wakeups import Pulse, Wakeups

pytestmark = pytest.mark.asyncio


class Waiting:
    """As much of the store as the pulse asks: is there work? Each answer once, then nothing. `backed_off` requests may
    be claimed once they are promoted."""

    def __init__(self, *answers: Pending | Exception, backed_off: int = 0) -> None:
        self._answers = list(answers)
        self.backed_off = backed_off
        self.idle = asyncio.Event()

    async def promote(self, limit: int, now: datetime) -> int:
        assert now.tzinfo is not None
        promoted = min(limit, self.backed_off)
        self.backed_off -= promoted
        return promoted

    async def pending(self, now: datetime) -> Pending:
        assert now.tzinfo is not None
        if not self._answers:
            self.idle.set()
            return Pending(*[False] * 7)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def pulse(store: Waiting, wakeups: Wakeups) -> Pulse:
    return Pulse(store, wakeups, interval_s=0.001)  # type: ignore[arg-type]  # it asks one question


KINDS = ("requests", "events", "claims", "doubts", "stops", "cancels")


def pending(*kinds: str) -> Pending:
    return Pending(**{kind: kind in kinds for kind in ("retries", *KINDS)})


def flags(wakeups: Wakeups) -> set[str]:
    return {kind for kind in KINDS if getattr(wakeups, kind).is_set()}


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in KINDS), KINDS])
async def test_each_kind_of_waiting_work_wakes_its_own_worker(kinds: tuple[str, ...]) -> None:
    wakeups = Wakeups()
    await pulse(Waiting(pending(*kinds)), wakeups).look()
    assert flags(wakeups) == set(kinds)


async def test_all_that_was_backed_off_and_is_due_may_be_claimed_after_one_look() -> None:
    wakeups, store = Wakeups(), Waiting(pending("retries"), backed_off=2500)
    await pulse(store, wakeups).look()
    assert store.backed_off == 0
    assert flags(wakeups) == {"requests"}


async def test_while_nothing_is_backed_off_and_due_nothing_is_written() -> None:
    store = Waiting(pending("events"), backed_off=1)
    await pulse(store, Wakeups()).look()
    assert store.backed_off == 1


async def test_a_flag_that_somebody_set_is_not_taken_back() -> None:
    wakeups = Wakeups()
    wakeups.events.set()
    await pulse(Waiting(pending()), wakeups).look()
    assert flags(wakeups) == {"events"}


async def test_a_database_that_is_away_costs_one_look_and_not_the_pulse() -> None:
    wakeups, store = (
        Wakeups(),
        Waiting(
            DatabaseUnavailableError("restarting"),
            pending("requests"),
        ),
    )
    component: Component = pulse(store, wakeups)
    running = asyncio.create_task(component.run())
    try:
        await asyncio.wait_for(wakeups.requests.wait(), 5)
        await asyncio.wait_for(store.idle.wait(), 5)
        await component.drain()
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
