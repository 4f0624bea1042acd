"""What falls due, in order of time, behind a single timer of the event loop.

One timer handle per generation would be compared in Python at every insertion. A heap of tuples is compared in C, so
a hundred thousand generations in flight cost next to nothing, and all that fall due together end in one turn of the
loop: their events leave in one write.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Calls `on_due(item)` once for each item, `delay_s` seconds after it was added. There is no removal: an item that
    no longer matters is ignored by its receiver.
    """

    def __init__(self, on_due: Callable[[T], None]) -> None:
        self._on_due = on_due
        self._heap: list[tuple[float, int, T]] = []
        self._order = count()
        self._timer: asyncio.Handle | None = None
        # Kept here because a timer set in the past is, under uvloop, a handle that does not know its time.
        self._wakes_at = math.inf
        self._closed = False

    def add(self, delay_s: float, item: T) -> None:
        """Put an item on the agenda; items due at the same time keep the order in which they came."""
        if self._closed:
            return
        due = asyncio.get_running_loop().time() + delay_s
        heapq.heappush(self._heap, (due, next(self._order), item))
        if due < self._wakes_at:
            self._arm()

    def close(self) -> None:
        """Forget everything, also what may still be added."""
        self._closed = True
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        """Set the timer to the earliest item, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at = None, math.inf
        if self._heap:
            self._wakes_at = self._heap[0][0]
            self._timer = asyncio.get_running_loop().call_at(self._wakes_at, self._run)

    def _run(self) -> None:
        # A timer may fire up to one clock tick early; what is due within a millisecond is due.
        now = asyncio.get_running_loop().time() + 0.001
        try:
            while self._heap and self._heap[0][0] <= now:
                self._on_due(heapq.heappop(self._heap)[2])
        finally:
            self._arm()
