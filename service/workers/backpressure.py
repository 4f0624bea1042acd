"""While nothing can be stored, nothing is taken from the broker.

Each loss of the connection would cost every message at hand one of its deliveries, and after twenty of them the broker
puts a message away.
"""

from __future__ import annotations

from collections.abc import Callable

from service.workers.ports import Inbox

PAUSE_AFTER_S = 3.0


def held_back(inbox: Inbox) -> Callable[[float], None]:
    """For `Batches`: told for how many seconds the database has taken nothing, pauses the inbox; at 0, resumes it."""

    def hold_back(failing_s: float) -> None:
        if failing_s == 0:
            inbox.resume()
        elif failing_s >= PAUSE_AFTER_S:
            inbox.pause(f"the database has taken nothing for {failing_s:.0f} s")

    return hold_back
