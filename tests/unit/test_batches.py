"""Micro-batches: what gathers while one flush runs is the next; nothing is lost, reordered or spoilt by a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from service.domain.errors import TransientError
from service.workers.batches import BUSY, BUSY_PER_S, Batches, Pace

pytestmark = pytest.mark.asyncio


class Flushes:
    """A flush that notes its batches; it can be held, told to fail, and has items that it cannot stand."""

    def __init__(self, *failures: BaseException, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._failures = list(failures)
        self._poison = poison

    async def __call__(self, batch: list[int]) -> None:
        self.batches.append(list(batch))
        self.began.set()
        await self.may_end.wait()
        if self._failures:
            raise self._failures.pop(0)
        if self._poison.intersection(batch):
            raise ValueError("no such item can be written")

    async def reach(self, count: int) -> None:
        """Waits until so many batches have begun."""
        while len(self.batches) < count:
            self.began.clear()
            await self.began.wait()

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


def batches_of(
    flush: Callable[[list[int]], Awaitable[None]], limit: int = 500, poisoned: Callable[[int], None] | None = None
) -> Batches[int]:
    return Batches("test", flush, limit, poisoned)


@asynccontextmanager
async def running(batches: Batches[int]) -> AsyncIterator[None]:
    """Runs them for the block, and ends them after it."""
    task = asyncio.create_task(batches.run())
    try:
        async with asyncio.timeout(5):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_alone_an_item_is_a_batch_of_one_and_waits_for_nobody() -> None:
    flush = Flushes()
    batches = batches_of(flush)
    async with running(batches):
        batches.add(1)
        await batches.drain()
        batches.add(2)
        await batches.drain()
    assert flush.batches == [[1], [2]]


async def test_what_gathers_while_a_flush_runs_is_the_next_batch() -> None:
    flush = Flushes()
    flush.may_end.clear()
    batches = batches_of(flush)
    async with running(batches):
        batches.add(1)
        await flush.began.wait()
        for item in (2, 3, 4):
            batches.add(item)
        flush.may_end.set()
        await batches.drain()
    assert flush.batches == [[1], [2, 3, 4]]


async def test_items_are_flushed_in_their_order_and_no_more_than_the_limit_at_a_time() -> None:
    flush = Flushes()
    batches = batches_of(flush, limit=4)
    for item in range(10):
        batches.add(item)
    async with running(batches):
        await batches.drain()
    assert flush.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_batches_of_a_busy_step_begin_apart_and_those_of_a_quiet_one_at_once() -> None:
    pace = Pace(0.1, busy_per_s=400)
    assert pace.rest(500, began=0.0, now=0.02) == 0.0  # the first after a silence, however large
    assert pace.rest(12, began=0.02, now=0.03) == pytest.approx(0.09)  # 12 in 20 ms
    assert pace.rest(40, began=0.12, now=0.14) == pytest.approx(0.08)  # 40 in 100 ms: as many as it takes
    assert pace.rest(39, began=0.22, now=0.24) == 0.0
    assert pace.rest(BUSY - 1, began=0.221, now=0.222) == 0.0  # a few at one moment are no load
    assert pace.rest(50, began=0.231, now=0.5) == 0.0  # the batch took longer than the pace


async def test_what_comes_while_a_busy_step_rests_is_one_batch() -> None:
    flushes = Flushes()
    batches: Batches[int] = Batches("step", flushes, 500, pace_s=0.5)
    async with running(batches):
        await busy(batches, flushes)
        for item in range(3):
            batches.add(item)
            for _ in range(10):
                await asyncio.sleep(0)  # turns of the loop: a flush between two of them, were there no rest
        await batches.drain()
    assert flushes.batches[2:] == [[0, 1, 2]]


async def test_a_full_batch_ends_the_rest_of_a_busy_step() -> None:
    flushes = Flushes()
    batches: Batches[int] = Batches("step", flushes, 500, pace_s=60)
    async with running(batches):
        await busy(batches, flushes)
        for item in range(500):
            batches.add(item)
        await flushes.reach(3)
    assert flushes.batches[2] == list(range(500))


async def busy(batches: Batches[int], flushes: Flushes) -> None:
    """Two batches within a second, of as many as a busy step gets in one: it rests after the second."""
    for number in (1, 2):
        for item in range(BUSY_PER_S):
            batches.add(item)
        await flushes.reach(number)


async def test_a_drain_of_nothing_is_done_at_once() -> None:
    await asyncio.wait_for(batches_of(Flushes()).drain(), 1)


async def test_a_drain_waits_for_the_flush_under_way_and_for_what_was_added_meanwhile() -> None:
    flush = Flushes()
    flush.may_end.clear()
    batches = batches_of(flush)
    async with running(batches):
        batches.add(1)
        await flush.began.wait()
        drain = asyncio.create_task(batches.drain())
        batches.add(2)
        await asyncio.wait({drain}, timeout=0)
        assert not drain.done()
        flush.may_end.set()
        await drain
    assert flush.items == [1, 2]


async def test_a_passing_failure_repeats_the_same_batch_before_any_other() -> None:
    flush = Flushes(TransientError("the database is away"), TransientError("still"))
    batches = batches_of(flush, limit=2)
    for item in (1, 2, 3):
        batches.add(item)
    async with running(batches):
        await batches.drain()
    assert flush.batches == [[1, 2], [1, 2], [1, 2], [3]]


async def test_how_long_a_batch_has_been_failing_is_told_and_when_that_is_over() -> None:
    told: list[float] = []
    flush = Flushes(TransientError("the database is away"), TransientError("still"))
    batches = Batches("test", flush, failing=told.append)
    async with running(batches):
        batches.add(1)
        await batches.drain()
    assert told[0] < told[1]
    assert told[1] > 0.05  # the back-off between them
    assert told[2:] == [0.0]


async def test_a_batch_that_fails_and_is_spoilt_afterwards_is_failing_no_more() -> None:
    told: list[float] = []
    flush = Flushes(TransientError("the database is away"), poison=frozenset({1}))
    batches = Batches("test", flush, failing=told.append)
    async with running(batches):
        batches.add(1)
        await batches.drain()
    assert told[0] >= 0
    assert told[1:] == [0.0]


async def test_one_bad_item_is_handed_over_alone_and_its_neighbours_are_written() -> None:
    spoilt: list[int] = []
    flush = Flushes(poison=frozenset({2}))
    batches = batches_of(flush, poisoned=spoilt.append)
    for item in (1, 2, 3):
        batches.add(item)
    async with running(batches):
        await batches.drain()
        batches.add(4)
        await batches.drain()
    assert flush.batches == [[1, 2, 3], [1], [2], [3], [4]]
    assert spoilt == [2]


async def test_a_bad_item_that_nobody_takes_does_not_stop_the_others() -> None:
    flush = Flushes(poison=frozenset({1}))
    batches = batches_of(flush)
    for item in (1, 2):
        batches.add(item)
    async with running(batches):
        await batches.drain()
    assert flush.batches[-1] == [2]


async def test_a_passing_failure_while_a_bad_item_is_looked_for_spoils_no_good_one() -> None:
    spoilt: list[int] = []
    flush = Flushes(ValueError("one of them"), TransientError("away"))
    batches = batches_of(flush, poisoned=spoilt.append)
    for item in (1, 2):
        batches.add(item)
    async with running(batches):
        await batches.drain()
    assert flush.batches == [[1, 2], [1], [1], [2]]
    assert spoilt == []


async def test_a_run_that_was_cut_off_in_a_flush_is_begun_anew_with_the_same_items() -> None:
    flush = Flushes()
    flush.may_end.clear()
    batches = batches_of(flush, limit=2)
    for item in (1, 2, 3):
        batches.add(item)
    async with running(batches):
        await flush.began.wait()
    flush.may_end.set()
    async with running(batches):
        await batches.drain()
    assert flush.batches == [[1, 2], [1, 2], [3]]


async def test_a_run_that_broke_goes_on_with_what_waits_when_it_is_begun_anew() -> None:
    def refuses(item: int) -> None:
        raise RuntimeError(f"nobody takes {item}")

    flush = Flushes(ValueError("the first time only"))
    batches = batches_of(flush, limit=1, poisoned=refuses)
    batches.add(1)
    batches.add(2)
    with pytest.raises(RuntimeError, match="nobody takes 1"):
        await asyncio.wait_for(batches.run(), 5)
    async with running(batches):
        await batches.drain()
    assert flush.batches == [[1], [1], [2]]


async def test_no_item_is_lost_or_doubled_whatever_the_interleaving() -> None:
    flush = Flushes()
    batches = batches_of(flush, limit=7)

    async def produce(first: int) -> None:
        for item in range(first, first + 100):
            batches.add(item)
            if item % 3 == 0:
                await flush.began.wait()
                flush.began.clear()
                batches.add(-item - 1)

    async with running(batches):
        await produce(0)
        await batches.drain()
    assert sorted(flush.items) == sorted([*range(100), *(-item - 1 for item in range(0, 100, 3))])
    assert [item for item in flush.items if item >= 0] == list(range(100))
    assert max(map(len, flush.batches)) <= 7
