"""Writes dashboards/drover.json, the Grafana dashboard, from its rows; a test sees that it is what these make.

python -m deploy.observability.dashboard
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from deploy.observability.queries import Figure, Panel, Query, Row
from deploy.observability.rows import ROWS

FILE = Path(__file__).parent / "dashboards" / "drover.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, FIGURE_HEIGHT, PANEL_HEIGHT, PANEL_WIDTH = 24, 4, 8, 8
EVERYTHING = ".*"  # of labels that a plain Prometheus does not have, too


def dashboard() -> dict[str, Any]:
    """As Grafana 10 and later read it."""
    return {
        "uid": "drover",
        "title": "drover",
        "description": "Is it working, where is it stuck, what does it cost?",
        "tags": ["drover"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    yield _variable("namespace", "label_values(drover_leading, namespace)", every=True)
    yield _variable("job", 'label_values(drover_leading{namespace=~"$namespace"}, job)', every=False)
    yield _variable(
        "instance", 'label_values(drover_leading{namespace=~"$namespace", job=~"$job"}, instance)', every=True
    )


def _variable(name: str, query: str, *, every: bool) -> dict[str, Any]:
    variable = {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": every,
        "includeAll": every,
        "current": {"text": "All", "value": "$__all"} if every else {},
    }
    return variable | ({"allValue": EVERYTHING} if every else {})


def _panels() -> Iterator[dict[str, Any]]:
    numbers, top = count(1), 0
    for row in ROWS:
        yield {
            "id": next(numbers),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        top += 1
        for panel, place in _placed(row):
            body = _figure(panel) if isinstance(panel, Figure) else _lines(panel)
            yield {"id": next(numbers), **body, "gridPos": place | {"y": place["y"] + top}}
        top += (FIGURE_HEIGHT if row.figures else 0) + PANEL_HEIGHT * -(-len(row.panels) * PANEL_WIDTH // COLUMNS)


def _placed(row: Row) -> Iterator[tuple[Figure | Panel, dict[str, int]]]:
    """The figures in one line, the panels below; `y` counts from the top of the row."""
    for index, figure in enumerate(row.figures):
        width = COLUMNS // len(row.figures)
        yield figure, {"x": width * index, "y": 0, "w": width, "h": FIGURE_HEIGHT}
    below = FIGURE_HEIGHT if row.figures else 0
    for index, panel in enumerate(row.panels):
        line, column = divmod(PANEL_WIDTH * index, COLUMNS)
        yield panel, {"x": column, "y": below + PANEL_HEIGHT * line, "w": PANEL_WIDTH, "h": PANEL_HEIGHT}


def _figure(figure: Figure) -> dict[str, Any]:
    steps = [{"value": value, "color": colour} for value, colour in figure.steps]
    defaults: dict[str, Any] = {"unit": figure.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if figure.decimals is not None:
        defaults["decimals"] = figure.decimals
    return {
        "type": "stat",
        "title": figure.title,
        "description": figure.look,
        "datasource": SOURCE,
        "targets": [{**_target("A", figure.query), "instant": True, "range": False}],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background" if len(figure.steps) > 1 else "value",
            "graphMode": "none",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _lines(panel: Panel) -> dict[str, Any]:
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none"},
    }
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.look,
        "datasource": SOURCE,
        "targets": [_target(chr(ord("A") + index), query) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _target(reference: str, query: Query) -> dict[str, Any]:
    return {
        "refId": reference,
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "range": True,
    }


def written() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), "utf-8")
