"""Times as people read them: how long, how long ago, in how long; and when, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def span(seconds: float) -> str:
    """A duration with its largest unit that fits twice."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def clock(moment: datetime, now: datetime) -> str:
    """The time, with the day unless it is today's."""
    moment = moment.astimezone(UTC)
    same_day = moment.date() == now.astimezone(UTC).date()
    return f"{moment:%H:%M:%S} UTC" if same_day else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def since(moment: datetime, now: datetime) -> str:
    """When, and how long ago."""
    return f"{clock(moment, now)} ({span((now - moment).total_seconds())} ago)"


def until(moment: datetime, now: datetime) -> str:
    """When, and in how long; when that has been, how long ago."""
    left = (moment - now).total_seconds()
    return f"{clock(moment, now)} (in {span(left)})" if left >= 0 else since(moment, now)
