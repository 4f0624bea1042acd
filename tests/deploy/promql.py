"""What an expression of PromQL speaks of: its metrics with the labels it selects, and the labels it groups by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from service.telemetry import Metrics

# A selector: a name that no `(` follows, and its matchers.
STRING = r'"(?:[^"\\]|\\.)*"'
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(rf"([a-zA-Z_:][\w:]*)\s*(?:\{{((?:{STRING}|[^}}])*)\}})?(?!\s*\()(?![\w:])")
MATCHER = re.compile(rf"(\w+)\s*(?:=~|!~|!=|=)\s*{STRING}")
VALUE = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
ALTERNATIVES = re.compile(r"([^()|]*)\(([^()]*)\)")
RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
WORDS = {"and", "or", "unless", "bool", "offset", "sum", "max", "min", "count", "avg", "topk"}
SUFFIXES = ("_total", "_bucket", "_sum", "_count")
OF_THE_SCRAPE = {"job", "instance", "namespace"}


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression, with the labels that are matched."""
    bare = GROUPING.sub(" ", RANGE.sub(" ", expression))
    for name, matchers in SELECTOR.findall(bare):
        if name not in WORDS and not name.isdigit():
            yield name, set(MATCHER.findall(f"{{{matchers}}}"))


def asked_values(expression: str) -> Iterator[tuple[str, str]]:
    """Each label that is matched, with each value that would do: a regular expression's alternatives."""
    for label, operator, text in VALUE.findall(expression):
        if "~" not in operator:
            yield label, text
        elif (group := ALTERNATIVES.fullmatch(text)) is not None:
            yield from ((label, group[1] + alternative) for alternative in group[2].split("|"))
        else:
            yield from ((label, alternative) for alternative in text.split("|"))


def groupings(expression: str) -> set[str]:
    """The labels that are grouped by or matched on."""
    return {label for group in GROUPING.findall(expression) for label in re.findall(r"\w+", group)}


def exposed() -> dict[str, set[str]]:
    """Every series that a replica exposes, by its name, with its labels."""
    metrics = Metrics()
    found = {"up": set[str]()}
    for family in metrics.registry.collect():
        found |= {key: set(getattr(family, "_labelnames", ())) for key in _names(family)}
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for family in metric.collect():
                labels = {*metric._labelnames, *(["le"] if family.type == "histogram" else [])}
                found |= dict.fromkeys(_names(family), labels)
    return found


def _names(family: Metric) -> list[str]:
    match family.type:
        case "counter":
            return [f"{family.name}_total"]
        case "histogram":
            return [f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")]
        case _:
            return [family.name]


def faults(expression: str, known: Mapping[str, set[str]]) -> list[str]:
    """What an expression asks for that nobody exposes."""
    found = []
    labels = set(OF_THE_SCRAPE)
    for name, matched in selectors(expression):
        if name not in known:
            found.append(f"nothing is called {name}")
            continue
        labels |= known[name]
        found += [f"{name} has no label {label}" for label in sorted(matched - known[name] - OF_THE_SCRAPE)]
    return found + [f"there is no label {label} to group by" for label in sorted(groupings(expression) - labels)]
