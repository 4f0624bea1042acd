"""What a look for waiting requests brings, and the limits that all replicas keep together."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from service.domain.states import Claimed


class Limits(Struct, frozen=True):
    """POSTs a second, and generations at a time; None: no limit.

    A request is not divided: one that asks for more generations than `max_in_flight` goes alone, once nothing else is
    in flight.
    """

    rate_per_s: float | None = None
    max_in_flight: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit to keep."""
        return self.rate_per_s is not None or self.max_in_flight is not None


class Claims(Struct, frozen=True):
    """Claimed requests, in the order in which they came up.

    `hold_s`: the hub has asked everybody to wait that many seconds. `wait_s`: until the rate allows the next POST.
    `contended`: others claimed at the same moment, and there may be more.
    """

    claimed: tuple[Claimed, ...] = ()
    hold_s: float = 0.0
    wait_s: float = 0.0
    contended: bool = False

    def __iter__(self) -> Iterator[Claimed]:
        return iter(self.claimed)

    def __len__(self) -> int:
        return len(self.claimed)

    def __getitem__(self, index: int) -> Claimed:
        return self.claimed[index]
