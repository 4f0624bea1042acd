"""What became of each POST to the queue, so that a checker can tell what its client knew from what it paid for."""

from __future__ import annotations

import time
from typing import Any, Final

OPEN: Final = "open"
"""Neither answered nor given up yet. Leaves by any of the following."""
ANSWERED: Final = "answered"
"""Accepted, and its ids were sent."""
REFUSED: Final = "refused"
"""Nothing was accepted, and the answer says so, with `status` (200 for an empty list with an error)."""
FAILED_LATE: Final = "failed_late"
"""Accepted, and answered with an error."""
LOST: Final = "lost"
"""Accepted, and the connection was cut instead of an answer."""
HUNG: Final = "hung"
"""Never answered; it was accepted if there are ids."""
GONE: Final = "gone"
"""The client went before the answer; it was accepted if there are ids."""


class Post:
    """One POST to the queue. `fault` names the fault that decided its fate; `answered_at` is when its fate was
    sealed. Times are Unix seconds.
    """

    __slots__ = ("answered_at", "at", "fate", "fault", "generation_ids", "prompt", "status")

    def __init__(self) -> None:
        self.at = time.time()
        self.prompt: Any = None
        self.generation_ids: tuple[str, ...] = ()
        self.fate = OPEN
        self.fault: str | None = None
        self.status: int | None = None
        self.answered_at: float | None = None

    def end(self, fate: str, status: int | None = None) -> None:
        """Seal its fate: once, what comes later is no news."""
        if self.fate == OPEN:
            self.fate, self.status, self.answered_at = fate, status, time.time()

    def entry(self) -> dict[str, Any]:
        """As the ledger shows it to tests."""
        return {
            "at": self.at,
            "prompt": self.prompt,
            "generation_ids": self.generation_ids,
            "fate": self.fate,
            "fault": self.fault,
            "status": self.status,
            "answered_at": self.answered_at,
        }
