"""What the hub's streams did over time: how many stood at once, and for how long."""

from __future__ import annotations

import asyncio
import time

from service.sandbox import Sandbox

LOOK_S = 0.01


class StreamWatch:
    """How many streams of a hub stood at once, by the hub's own log, so that no change is too short to be seen.

    `until` follows the changes in their order: what it found once is not found again after something later.
    """

    def __init__(self, hub: Sandbox) -> None:
        self._log = hub.hub.broadcast.log
        self._started = time.monotonic()
        self._to_monotonic = self._started - time.time()
        self._reached = 0

    @property
    def changes(self) -> list[tuple[float, int]]:
        """The number that stood from each moment (time.monotonic) on, the oldest first."""
        steps = [(span.opened_at, 1) for span in self._log]
        steps += [(span.closed_at, -1) for span in self._log if span.closed_at is not None]
        changes = [(self._started, 0)]
        for moment, step in sorted(steps):
            changes.append((moment + self._to_monotonic, changes[-1][1] + step))
        return changes

    @property
    def count(self) -> int:
        """How many stand now."""
        return self.changes[-1][1]

    async def until(self, count: int, timeout_s: float = 20.0) -> float:
        """Waits until that many stand, or did at any time after what was waited for before; since when."""
        try:
            async with asyncio.timeout(timeout_s):
                while (found := self._next(count)) is None:
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"Never {count} streams within {timeout_s:g} s: {self.changes}") from None
        return found

    def _next(self, count: int) -> float | None:
        changes = self.changes
        for position in range(self._reached, len(changes)):
            moment, at_once = changes[position]
            if at_once == count:
                self._reached = position
                return moment
        return None

    def longest(self, count: int, since: float = 0.0) -> float:
        """The longest time for which that many stood at once, in seconds; counted from `since` on."""
        changes = self.changes
        ends = [moment for moment, _ in changes[1:]] + [time.monotonic()]
        spans = [
            end - max(began, since) for (began, at_once), end in zip(changes, ends, strict=True) if at_once == count
        ]
        return max([0.0, *spans])
