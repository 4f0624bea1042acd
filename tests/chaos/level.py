"""Whether a series of measurements stays level: a straight line through its later part. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression

SKIPPED = 0.25  # of the time: caches, pools and the interpreter's own heap fill up first


@dataclass(frozen=True, slots=True)
class Trend:
    """A series of (seconds, value) from its second quarter to its end: the mean, and by how much the line through it
    rises in that time."""

    name: str
    unit: str
    first: float
    mean: float
    last: float
    rise: float
    allowed: float

    @property
    def level(self) -> bool:
        """Whether it rises by no more than is allowed; falling is no fault."""
        return self.rise <= self.allowed


def trend(name: str, unit: str, series: Sequence[tuple[float, float]], *, share: float, least: float) -> Trend:
    """`share` of the mean, but at the least `least`, may be gained. ValueError for fewer than eight values."""
    if len(series) < 8:
        raise ValueError(f"{name}: {len(series)} values say nothing about a trend")
    began, ended = series[0][0], series[-1][0]
    later = [point for point in series if point[0] >= began + SKIPPED * (ended - began)]
    moments, values = zip(*later, strict=True)
    slope = linear_regression(moments, values).slope
    mean = fmean(values)
    return Trend(name, unit, values[0], mean, values[-1], slope * (moments[-1] - moments[0]), max(least, share * mean))
