"""Whether the running task was cancelled, for where a library hides it or cancels what nobody cancelled."""

from __future__ import annotations

import asyncio


def raise_if_cancelled(error: BaseException | None = None) -> None:
    """Raises CancelledError in a task that has been cancelled: for where a library lets a cancellation get lost."""
    if is_cancelled():
        raise asyncio.CancelledError from error


def is_cancelled() -> bool:
    """Whether somebody cancelled this task, rather than a driver something of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
