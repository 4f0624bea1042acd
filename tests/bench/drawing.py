"""Draws a row of the dashboard with matplotlib as Grafana would lay it out: its queries, its units, its places."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from PIL import Image

COLUMNS = 24
WIDTH_IN, LINE_IN, DPI, COLOURS = 15.0, 0.33, 76, 128
NAME = re.compile(r"\{\{(\w+)\}\}")
TONES = {"green": "#2e8b57", "orange": "#d98200", "red": "#c0392b", "text": "#444444"}
LINES = ("#1b6ca8", "#d95f02", "#2e8b57", "#c0392b", "#7570b3", "#8a6d3b", "#e6ab02", "#17becf", "#e377c2", "#666666")
Series = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the system, from one moment to another (seconds)."""

    letter: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel, and the series of each of its queries: `values` over time, or the one `value` of now."""

    panel: Mapping[str, Any]
    series: Sequence[Series]


def draw(panels: Sequence[Drawn], marks: Sequence[Mark], began: float, seconds: float, file: Path) -> None:
    """Writes one picture. `began` is a Unix time; the x axis counts from there."""
    places = [drawn.panel["gridPos"] for drawn in panels]
    top = min(place["y"] for place in places)
    height = max(place["y"] + place["h"] for place in places) - top
    figure = Figure(figsize=(WIDTH_IN, LINE_IN * height), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(height, COLUMNS)
    for drawn, place in zip(panels, places, strict=True):
        y, x = place["y"] - top, place["x"]
        axes = figure.add_subplot(grid[y : y + place["h"], x : x + place["w"]])
        axes.set_title(drawn.panel["title"], loc="left", fontsize=9, fontweight="bold")
        if drawn.panel["type"] == "stat":
            _figure(axes, drawn)
        else:
            _lines(axes, drawn, marks, began, seconds)
    _save(figure, file)


def _figure(axes: Axes, drawn: Drawn) -> None:
    defaults = drawn.panel["fieldConfig"]["defaults"]
    found = [(float(entry["value"][1]), _name(drawn, 0, entry)) for entry in drawn.series[0]]
    value, name = found[0] if found else (float("nan"), "")
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    text = written(value, defaults["unit"], defaults.get("decimals")) if found else "no data"
    tone = TONES[steps[-1]["color"]]
    axes.set_facecolor(tone if len(defaults["thresholds"]["steps"]) > 1 else "white")
    colour = "white" if len(defaults["thresholds"]["steps"]) > 1 else tone
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18, color=colour, transform=axes.transAxes)
    axes.text(0.5, 0.12, name, ha="center", va="center", fontsize=7, color=colour, transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _lines(axes: Axes, drawn: Drawn, marks: Sequence[Mark], began: float, seconds: float) -> None:
    defaults = drawn.panel["fieldConfig"]["defaults"]
    curves = sorted(
        (_name(drawn, index, entry), [(float(at) - began, float(value)) for at, value in entry["values"]])
        for index, series in enumerate(drawn.series)
        for entry in series
    )
    if defaults["custom"]["stacking"]["mode"] == "normal":
        _stacked(axes, curves)
    else:
        for index, (name, points) in enumerate(curves):
            axes.plot(*_with_gaps(points), label=name, linewidth=1.1, color=LINES[index % len(LINES)])
    for mark in marks:
        axes.axvspan(mark.start, mark.end, color="#000000", alpha=0.07, linewidth=0)
        axes.text(mark.start + 1, 0.98, mark.letter, fontsize=7, transform=axes.get_xaxis_transform(), va="top")
    highest = max((value for _, points in curves for _, value in points if value == value), default=0.0)
    axes.set(xlim=(0, seconds), ylim=(0, 1.08 * axes.get_ylim()[1] if highest > 0 else 1))
    if defaults["unit"] == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(20 * 2**20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, defaults["unit"])))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    if curves:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.1),
            ncols=2 if len(curves) in (2, 4) else 3,
            frameon=False,
            fontsize=6.5,
            handlelength=1.2,
            columnspacing=1.0,
        )
    else:
        axes.text(0.5, 0.5, "nothing of the kind", ha="center", fontsize=8, color="#777777", transform=axes.transAxes)


def _stacked(axes: Axes, curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> None:
    moments = sorted({x for _, points in curves for x, _ in points})
    layers = [[dict(points).get(x, 0.0) for x in moments] for _, points in curves]
    axes.stackplot(moments, layers, labels=[name for name, _ in curves], colors=LINES, alpha=0.75)


def _with_gaps(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Where Prometheus has nothing, no line is drawn across it."""
    usual = min((after[0] - before[0] for before, after in pairwise(points)), default=0.0)
    xs: list[float] = []
    ys: list[float] = []
    for x, y in points:
        if xs and x - xs[-1] > 1.5 * usual:
            xs.append(x)
            ys.append(float("nan"))
        xs.append(x)
        ys.append(y)
    return xs, ys


def _name(drawn: Drawn, query: int, entry: Mapping[str, Any]) -> str:
    legend = drawn.panel["targets"][query]["legendFormat"]
    return NAME.sub(lambda label: entry["metric"].get(label[1], ""), "" if legend == "__auto" else legend)


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, as short as can be."""
    if value != value:  # not a number: nothing to divide by
        return "-"
    places = 0 if abs(value) >= 1000 else decimals
    number = f"{value:,.{places}f}" if places is not None else f"{value:.4g}"
    match unit:
        case "s":
            return f"{1000 * value:,.3g} ms" if 0 < abs(value) < 1 else f"{value:,.3g} s"
        case "reqps":
            return f"{number}/s"
        case "percentunit":
            return f"{100 * value:,.{decimals or 0}f} %"
        case "currencyUSD":
            return f"${number}"
        case "bytes":
            return f"{value / 2**20:.3g} MiB"
    return number


def _save(figure: Figure, file: Path) -> None:
    """Few colours: a repository keeps every version."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    few = Image.open(whole).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
