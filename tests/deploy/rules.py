"""The alert rules as the Prometheus operator takes them: the groups of deploy/observability/alerts.yaml, unchanged.

.venv/bin/python -m tests.deploy.rules    # writes them anew after a change
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ALERTS = DEPLOY / "observability" / "alerts.yaml"
WRITTEN = DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = "# Written by `python -m tests.deploy.rules` from deploy/observability/alerts.yaml: change that.\n"


class Readable(yaml.SafeDumper):
    """Expressions of several lines stay so."""


def _text(dumper: Readable, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, _text)


def alert_groups() -> list[Any]:
    """As they stand in the file."""
    return list(yaml.safe_load(ALERTS.read_text("utf-8"))["groups"])


def prometheus_rule() -> str:
    """The file's text."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "drover", "labels": {"app.kubernetes.io/name": "drover"}},
        "spec": {"groups": alert_groups()},
    }
    return HEAD + yaml.dump(document, Dumper=Readable, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    WRITTEN.write_text(prometheus_rule(), "utf-8")
