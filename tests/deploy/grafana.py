"""Reads the dashboard as Grafana does: its panels, and their expressions with the variables put in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "deploy" / "observability" / "dashboards" / "drover.json"
VARIABLE = re.compile(r"\$(\w+)")


def dashboard() -> dict[str, Any]:
    """The file."""
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    """Every panel but the rows' heads."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rows() -> dict[str, list[dict[str, Any]]]:
    """The panels below each row's head."""
    found: dict[str, list[dict[str, Any]]] = {}
    title = ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            title = panel["title"]
        else:
            found.setdefault(title, []).append(panel)
    return found


def substituted(expression: str, window: str, job: str = "drover") -> str:
    """With everything selected. KeyError names a variable that the dashboard does not have."""
    values: Mapping[str, str] = {"namespace": ".*", "job": job, "instance": ".*", "__rate_interval": window}
    return VARIABLE.sub(lambda found: values[found[1]], expression)
