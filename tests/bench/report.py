"""The figures of the runs as a table, and as two pictures: throughput over time, and the latency that is added."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

MIB = 1024 * 1024
COLOURS = {"drover": "#1b6ca8", "floor": "#9a9a9a"}
COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], float], str], ...] = (
    ("ended/s", lambda run: run["per_s"], "{:,.0f}"),
    ("outputs/s", lambda run: run["per_s"] * run["scenario"]["outputs"], "{:,.0f}"),
    ("POST/s", lambda run: run["posts_per_s"], "{:,.0f}"),
    ("CPU s/1,000", lambda run: run["cpu_per_1000"]["contestant"], "{:.2f}"),
    ("Postgres", lambda run: run["cpu_per_1000"]["postgres"], "{:.2f}"),
    ("RabbitMQ", lambda run: run["cpu_per_1000"]["rabbitmq"], "{:.2f}"),
    ("added p50 ms", lambda run: run["added_ms"].get("p50", 0.0), "{:,.1f}"),
    ("p99 ms", lambda run: run["added_ms"].get("p99", 0.0), "{:,.1f}"),
    ("peak MiB", lambda run: run["peak_bytes"] / MIB, "{:.0f}"),
    ("calls/generation", lambda run: run["calls_per_generation"], "{:.2f}"),
    ("lost", lambda run: run["lost"], "{:.0f}"),
    ("repeated", lambda run: run["repeated"], "{:.0f}"),
)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each scenario and contestant, the medians of its runs."""
    head = ["", "contestant", "runs", *(name for name, _, _ in COLUMNS)]
    lines = [_line(head), _line(["---"] * len(head))]
    for letter, contestant in dict.fromkeys((run["scenario"]["letter"], run["contestant"]) for run in runs):
        own = _of(runs, letter, contestant)
        cells = [written.format(statistics.median(map(value, own))) for _, value, written in COLUMNS]
        lines.append(_line([letter, contestant, str(len(own)), *cells]))
    return "\n".join(lines)


def ratios(runs: Sequence[dict[str, Any]]) -> str:
    """How drover compares with the floor: the medians of the ratios of runs that followed each other."""
    lines = []
    for letter in dict.fromkeys(run["scenario"]["letter"] for run in runs):
        pairs = list(zip(_of(runs, letter, "drover"), _of(runs, letter, "floor"), strict=False))
        if pairs:
            rate = statistics.median(ours["per_s"] / floor["per_s"] for ours, floor in pairs)
            cpu = statistics.median(
                ours["cpu_per_1000"]["contestant"] / floor["cpu_per_1000"]["contestant"] for ours, floor in pairs
            )
            lines.append(f"{letter}: {rate:.2f} of the floor's rate, {cpu:.2f} times its CPU")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _of(runs: Sequence[dict[str, Any]], letter: str, contestant: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["scenario"]["letter"], run["contestant"]) == (letter, contestant)]


def plot_throughput(runs: Sequence[dict[str, Any]], file: Path) -> None:
    """Ends a second, in half seconds, of the last run of each contestant."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for contestant, run in _latest(runs):
        over_time = run["per_s_over_time"]
        axes.step(
            [index / 2 for index in range(len(over_time))],
            over_time,
            where="post",
            label=contestant,
            color=COLOURS[contestant],
        )
    axes.set(xlabel="seconds since the first POST", ylabel="requests ended a second", ylim=(0, None), xlim=(0, None))
    _finish(figure, axes, runs, file)


def plot_latency(runs: Sequence[dict[str, Any]], file: Path) -> None:
    """Which share of the ends was heard within which time of the hub's own end."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for contestant, run in _latest(runs):
        distribution = run["added_ms_distribution"]
        share = [100 * index / (len(distribution) - 1) for index in range(len(distribution))]
        axes.plot(distribution, share, label=contestant, color=COLOURS[contestant])
    axes.set(xlabel="milliseconds from the hub's end to the event", ylabel="% of the requests", xscale="log")
    _finish(figure, axes, runs, file)


def _latest(runs: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return list({run["contestant"]: run for run in runs}.items())


def _finish(figure: Figure, axes: Axes, runs: Sequence[dict[str, Any]], file: Path) -> None:
    scenario = runs[0]["scenario"]
    axes.set_title(f"{scenario['letter']}: {scenario['words']}", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
