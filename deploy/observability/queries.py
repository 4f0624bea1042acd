"""What a dashboard consists of, and the expressions of PromQL that its panels have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SELECTED = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
WINDOW = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, and how its lines are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over time. `unit` is a name of Grafana's."""

    title: str
    unit: str
    look: str
    queries: Sequence[Query]
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One number as of now. `steps` are the colours from each value on; the first holds from minus infinity."""

    title: str
    unit: str
    look: str
    query: Query
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),)
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and what answers it."""

    title: str
    figures: Sequence[Figure]
    panels: Sequence[Panel]


def of(metric: str, matchers: str = "") -> str:
    """A metric of the replicas that are selected."""
    return f"{metric}{{{', '.join(filter(None, (matchers, SELECTED)))}}}"


def rate(metric: str, by: str = "", matchers: str = "") -> str:
    """How fast a counter rises, all replicas together, a second."""
    return f"{_sum(by)} (rate({of(metric, matchers)}{WINDOW}))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """That of a histogram, all replicas together."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'le, {by}' if by else 'le')})"


def mean(histogram: str, by: str = "") -> str:
    """That of a histogram, all replicas together."""
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"


def increase(counter: str, hours: int, by: str = "") -> str:
    """By how much a counter has risen. `increase` does not see the event with which a series begins to exist: where it
    was not there before, what it began with is added."""
    risen = f"increase({of(counter)}[{hours}h])"
    older = f"max_over_time({of(counter)}[1h] offset {hours}h)"
    began = f"(min_over_time({of(counter)}[{hours}h]) unless {older})"
    return f"{_sum(by)} ({risen} + {began} or {began} or {risen})"


def or_zero(expression: str) -> str:
    """0 where nothing of the kind has happened yet."""
    return f"({expression}) or vector(0)"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
