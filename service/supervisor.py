"""Components and their lives: started together, restarted when they break, stopped in order.

A component's `run` never returns by itself: one that does has failed as surely as one that raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from service.cancellation import is_cancelled
from service.domain.retry import Backoff

log = structlog.get_logger(__name__)
END_S = 5.0  # a cancelled component that still runs then is left behind, and named
STEADY_S = 60.0  # a component that ran this long has recovered


class Component(Protocol):
    """A long-running part of the service."""

    @property
    def name(self) -> str:
        """The noun that logs and metrics use."""
        ...

    async def run(self) -> None:
        """Works until cancelled."""
        ...

    async def drain(self) -> None:
        """Takes nothing new and finishes what is held; called while `run` still runs."""
        ...


async def run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs the endless loops of one component until one of them ends, which fails them all.

    A bare TaskGroup takes a child that was cancelled for one that is done, and a frozen broker makes drivers cancel
    what nobody cancelled: the component would look alive with a loop missing.
    """
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(_endless(part))


async def _endless(part: Coroutine[Any, Any, None]) -> None:
    name = getattr(part, "__qualname__", repr(part))
    try:
        await part
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise RuntimeError(f"A driver cut {name} off.") from error
    raise RuntimeError(f"{name} returned.")


class Supervisor:
    """Runs components; `stop` drains them in the order in which they were given, then ends them all. Used once."""

    def __init__(self, components: Sequence[Component], *, restart: Backoff | None = None) -> None:
        self._components = components
        self._restart = restart or Backoff(first=0.2, limit=30)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._failures: dict[str, tuple[int, float]] = {}  # of each component: how many in a row, and when the last

    def failures(self) -> dict[str, int]:
        """How often each component failed in a row; those that have been steady since are left out."""
        now = time.monotonic()
        return {name: count for name, (count, last) in self._failures.items() if now - last <= STEADY_S}

    def start(self) -> None:
        """Begins to run every component."""
        for component in self._components:
            self._tasks[component.name] = asyncio.create_task(self._keep_running(component), name=component.name)

    async def stop(self, grace_s: float) -> None:
        """Drains in order, all within `grace_s` seconds; what is not done by then is cut off and named."""
        deadline = time.monotonic() + grace_s
        self._stopping.set()
        for component in self._components:
            left = max(0.0, deadline - time.monotonic())
            try:
                async with asyncio.timeout(left):
                    await component.drain()
            except TimeoutError:
                log.warning("drain.cut_off", component=component.name, grace_s=grace_s)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                log.warning("drain.cut", component=component.name, reason=repr(error))
            except Exception:  # the stop goes on whatever one component does
                log.exception("drain.failed", component=component.name)
        await self.end()

    async def end(self) -> None:
        """Cancels every component and waits for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=END_S)
            for task in stuck:
                log.error("component.stuck", component=task.get_name(), waited_s=END_S)
        self._tasks.clear()

    async def _keep_running(self, component: Component) -> None:
        while True:
            began = time.monotonic()
            try:
                await component.run()
                log.error("component.returned", component=component.name)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                # A driver's own cancellation (a frozen broker does this) must not end a component silently.
                log.warning("component.cut", component=component.name, reason=repr(error))
            except Exception:  # whatever broke it, the loop is supervised
                log.exception("component.broke", component=component.name)
            before, _ = self._failures.get(component.name, (0, 0.0))
            failures = 1 if time.monotonic() - began > STEADY_S else before + 1
            self._failures[component.name] = (failures, time.monotonic())
            await self._rest(failures)

    async def _rest(self, failures: int) -> None:
        """Before a component is begun anew; one that is to be drained is needed at once."""
        if self._stopping.is_set():
            await asyncio.sleep(self._restart.jittered(1))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._restart.jittered(failures)):
                await self._stopping.wait()
