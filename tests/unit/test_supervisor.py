"""Components and their lives: restarted whatever ends them, drained in order within the grace, none left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from service.domain.retry import Backoff
from service.supervisor import Component, Supervisor, run_together

pytestmark = pytest.mark.asyncio
AT_ONCE = Backoff(first=0.001, limit=0.002)


class Part:
    """A component whose runs end as told, one after another; then it runs until cancelled."""

    def __init__(self, name: str, *ends: BaseException | None, journal: list[str] | None = None) -> None:
        self.name = name
        self.runs = 0
        self.steady = asyncio.Event()
        self.cancelled = False
        self.drain_error: BaseException | None = None
        self.drain_blocks = False
        self.drains_when: asyncio.Event | None = None
        self._ends = list(ends)
        self._journal = journal if journal is not None else []

    async def run(self) -> None:
        self.runs += 1
        if self._ends:
            end = self._ends.pop(0)
            if end is not None:
                raise end
            return
        self.steady.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            self._journal.append(f"{self.name} ended")
            raise

    async def drain(self) -> None:
        assert not self.cancelled, "a component is drained while it still runs"
        self._journal.append(f"{self.name} drained")
        if self.drains_when is not None:
            await self.drains_when.wait()
        if self.drain_blocks:
            await asyncio.Event().wait()
        if self.drain_error is not None:
            raise self.drain_error


@asynccontextmanager
async def supervised(components: Sequence[Component], restart: Backoff = AT_ONCE) -> AsyncIterator[Supervisor]:
    """Started for the block; afterwards not one task more than before."""
    before = asyncio.all_tasks()
    supervisor = Supervisor(components, restart=restart)
    supervisor.start()
    try:
        async with asyncio.timeout(10):
            yield supervisor
    finally:
        await supervisor.end()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "end",
    [None, ValueError("a defect"), TimeoutError("too slow"), asyncio.CancelledError("a driver's own")],
    ids=["returns", "breaks", "times out", "is cut by a driver"],
)
async def test_a_component_that_ends_is_restarted_whatever_ended_it(end: BaseException | None) -> None:
    part = Part("part", end, end, end)
    async with supervised([part]) as supervisor:
        await part.steady.wait()
        assert part.runs == 4
        assert supervisor.failures() == {"part": 3}


async def test_one_component_that_breaks_leaves_the_others_alone() -> None:
    good, bad = Part("good"), Part("bad", ValueError("x"), ValueError("y"))
    async with supervised([good, bad]) as supervisor:
        await bad.steady.wait()
        await good.steady.wait()
        assert good.runs == 1
        assert "good" not in supervisor.failures()


async def test_a_failure_of_a_group_of_tasks_is_a_failure_of_the_component() -> None:
    part = Part("part", ExceptionGroup("of a task group", [ValueError("x")]))
    async with supervised([part]):
        await part.steady.wait()
        assert part.runs == 2


async def test_a_component_that_keeps_breaking_is_restarted_ever_more_slowly() -> None:
    asked: list[int] = []

    class Noting(Backoff, frozen=True):
        def jittered(self, failures: int, spread: float | None = None) -> float:
            asked.append(failures)
            return super().jittered(failures, spread) * 0

    part = Part("part", *[ValueError("x")] * 5)
    async with supervised([part], Noting()):
        await part.steady.wait()
    assert asked == [1, 2, 3, 4, 5]


async def test_components_are_drained_in_their_order_before_any_is_ended() -> None:
    journal: list[str] = []
    parts = [Part(name, journal=journal) for name in ("first", "second", "third")]
    async with supervised(parts) as supervisor:
        for part in parts:
            await part.steady.wait()
        await supervisor.stop(5)
    assert journal[:3] == ["first drained", "second drained", "third drained"]
    assert set(journal[3:]) == {"first ended", "second ended", "third ended"}


async def test_a_drain_that_does_not_end_is_cut_off_by_the_grace_and_the_rest_still_drains() -> None:
    journal: list[str] = []
    parts = [Part(name, journal=journal) for name in ("first", "stuck", "last")]
    parts[1].drain_blocks = True
    async with supervised(parts) as supervisor:
        for part in parts:
            await part.steady.wait()
        await supervisor.stop(0.05)
    assert journal[:3] == ["first drained", "stuck drained", "last drained"]
    assert all(part.cancelled for part in parts)


@pytest.mark.parametrize(
    "error",
    [ValueError("a defect"), TimeoutError("its own"), asyncio.CancelledError("a driver's own")],
    ids=lambda error: type(error).__name__,
)
async def test_a_drain_that_breaks_does_not_stop_the_stop(error: BaseException) -> None:
    journal: list[str] = []
    bad, good = Part("bad", journal=journal), Part("good", journal=journal)
    bad.drain_error = error
    async with supervised([bad, good]) as supervisor:
        await bad.steady.wait()
        await good.steady.wait()
        await supervisor.stop(5)
        assert (bad.cancelled, good.cancelled) == (True, True)
    assert journal[:2] == ["bad drained", "good drained"]


async def test_a_stop_that_is_cancelled_itself_is_not_swallowed() -> None:
    stuck = Part("stuck")
    stuck.drain_blocks = True
    async with supervised([stuck]) as supervisor:
        await stuck.steady.wait()
        stop = asyncio.create_task(supervisor.stop(60))
        await asyncio.wait({stop}, timeout=0.01)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop


async def test_a_component_that_waits_for_its_restart_is_ended_too() -> None:
    broke = asyncio.Event()

    class Breaking(Part):
        async def run(self) -> None:
            broke.set()
            raise ValueError("x")

    async with supervised([Breaking("part")], Backoff(first=3600, limit=3600)) as supervisor:
        await broke.wait()
        await asyncio.wait_for(supervisor.stop(1), 5)


async def test_a_supervisor_can_be_ended_before_it_was_started_and_twice() -> None:
    supervisor = Supervisor([Part("part")])
    await supervisor.end()
    supervisor.start()
    await supervisor.end()
    await supervisor.end()


async def test_the_tasks_bear_the_names_of_their_components() -> None:
    part = Part("reconciler")
    async with supervised([part]):
        await part.steady.wait()
        assert "reconciler" in {task.get_name() for task in asyncio.all_tasks()}


async def test_loops_that_run_together_fail_together_when_one_returns_or_is_cut_off() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def returns() -> None:
        await asyncio.sleep(0)

    async def cut() -> None:
        raise asyncio.CancelledError("the driver's own")

    for broken in (returns, cut):
        ended.clear()
        with pytest.raises(ExceptionGroup) as caught:
            await run_together(endless(), broken())
        assert caught.group_contains(RuntimeError, match=broken.__name__)
        assert ended.is_set()


async def test_a_component_that_has_been_steady_again_is_no_longer_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    broke = asyncio.Event()

    class Part:
        name = "part"

        async def run(self) -> None:
            if not broke.is_set():
                broke.set()
                raise RuntimeError("once")
            await asyncio.Event().wait()

        async def drain(self) -> None: ...

    supervisor = Supervisor([Part()], restart=Backoff(first=0.001, limit=0.001))
    supervisor.start()
    await broke.wait()
    await asyncio.sleep(0)
    assert supervisor.failures() == {"part": 1}
    monkeypatch.setattr("service.supervisor.STEADY_S", -1.0)
    assert supervisor.failures() == {}
    await supervisor.end()


async def test_a_component_that_rests_after_a_failure_is_begun_anew_to_be_drained() -> None:
    part = Part("part", ValueError("a defect"))
    async with supervised([part], Backoff(first=3600, limit=3600)) as supervisor:
        while supervisor.failures() != {"part": 1}:
            await asyncio.sleep(0)
        part.drains_when = part.steady
        await supervisor.stop(5)
        assert part.runs == 2
