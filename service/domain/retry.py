"""Back-off as data: a frozen curve, its exact delay, and the same delay with jitter."""

from __future__ import annotations

import random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Delays in seconds: `first`, then `factor` times more each time, never above `limit`."""

    first: float = 0.5
    factor: float = 2.0
    limit: float = 30.0

    def delay(self, failures: int) -> float:
        """The delay after `failures` (1 or more) failures in a row, without jitter."""
        exponent = min(max(failures, 1) - 1, 64)  # 2.0**64 is past every limit; more would overflow
        return min(self.limit, self.first * self.factor**exponent)

    def jittered(self, failures: int, spread: float | None = None) -> float:
        """The delay times 0.5 to 1.0: callers that failed together do not come back together."""
        share = random.random() if spread is None else spread  # noqa: S311 - spreads load, guards nothing
        return self.delay(failures) * (0.5 + share / 2)
