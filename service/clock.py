"""The wall clock: aware, in UTC. Durations are measured on the monotonic clock instead."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)
