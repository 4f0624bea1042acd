"""What the hub's streams did over time: how many stood at once, and for how long."""

from __future__ import annotations

import asyncio
import time
from typing import Self

from service.sandbox import Sandbox

LOOK_S = 0.01


class StreamWatch:
    """Samples the number of open streams of a hub while entered. `changes` holds (time.monotonic, count)."""

    def __init__(self, hub: Sandbox) -> None:
        self._broadcast = hub.hub.broadcast
        self.changes: list[tuple[float, int]] = []
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            count = len(self._broadcast)
            if not self.changes or self.changes[-1][1] != count:
                async with self._changed:
                    self.changes.append((time.monotonic(), count))
                    self._changed.notify_all()
            await asyncio.sleep(LOOK_S)

    @property
    def count(self) -> int:
        """How many stand now."""
        return self.changes[-1][1] if self.changes else 0

    async def until(self, count: int, timeout_s: float = 20.0) -> float:
        """Waits until that many stand; since when."""
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: bool(self.changes) and self.count == count)
            except TimeoutError:
                raise TimeoutError(f"Never {count} streams within {timeout_s:g} s: {self.changes}") from None
            return self.changes[-1][0]

    def longest(self, count: int, since: float = 0.0) -> float:
        """The longest time for which that many stood at once, in seconds; counted from `since` on."""
        ends = [moment for moment, _ in self.changes[1:]] + [time.monotonic()]
        spans = [
            end - max(began, since)
            for (began, at_once), end in zip(self.changes, ends, strict=True)
            if at_once == count
        ]
        return max([0.0, *spans])
