"""The dashboard: made from its rows, readable, and asking a real Prometheus what a real replica tells it."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deploy.observability.dashboard import written
from service.sandbox import Faults, Sandbox
from tests.deploy.grafana import FILE, dashboard, panels, rows, substituted
from tests.deploy.promql import exposed, faults
from tests.support.bus import Team
from tests.support.prometheus import Prometheus
from tests.support.replica import environment, running

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "observability" / "alerts.yaml"
UNITS = {"none", "short", "s", "reqps", "percentunit", "currencyUSD", "bytes"}
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
MOST_BYTES = 100_000
WINDOW = "1m"
QUICK = {"DROVER_DOUBT_GRACE_S": "1", "DROVER_RECONCILE_INTERVAL_S": "2"}
PRICE = 121 / 24 * 0.1  # dollars for one film of the default model as the stand-in hub has it
# What a run without these faults does not tell: a batch that fails, a price nobody knows, something paid for twice.
NOT_TOLD = re.compile(r"drover_batch_failures_total|drover_unpriced_generations_total|drover_generations_unowned_total")

QUERIES = [(panel["title"], target) for panel in panels() for target in panel["targets"]]


def test_the_file_is_what_its_rows_make() -> None:
    assert FILE.read_text("utf-8") == written(), "run: .venv/bin/python -m deploy.observability.dashboard"


def test_its_rows_are_three_questions() -> None:
    assert list(rows()) == ["Is it working?", "Where is it stuck?", "What does it cost?"]


def test_no_two_panels_have_one_id_and_none_covers_another() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in every)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))
    assert all(before["gridPos"]["y"] <= after["gridPos"]["y"] for before, after in pairwise(every))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_says_what_to_look_for_in_which_unit_and_takes_its_source_from_the_variable(
    panel: dict[str, Any],
) -> None:
    assert panel["type"] in ("stat", "timeseries")
    assert len(panel["description"]) > 30
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) > 0


@pytest.mark.parametrize(("title", "target"), QUERIES, ids=[f"{title}-{t['refId']}" for title, t in QUERIES])
def test_a_query_asks_for_what_a_replica_exposes_and_for_the_selected_ones_alone(
    title: str, target: dict[str, Any]
) -> None:
    expression = target["expr"]
    assert faults(substituted(expression, WINDOW), exposed()) == []
    for braces in re.findall(r"\{([^}]*)\}", expression):
        assert braces.endswith('namespace=~"$namespace", job=~"$job", instance=~"$instance"')
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert label in grouped, f"{title}: the legend names {label}, which the query drops"


def test_every_variable_takes_what_has_no_such_label() -> None:
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "job", "instance"]
    assert variables["namespace"]["allValue"] == variables["instance"]["allValue"] == ".*"


def test_the_guide_shows_every_picture_and_none_is_large() -> None:
    guide = ROOT / "deploy" / "OPERATING.md"
    shown = [guide.parent / link for link in PICTURE.findall(guide.read_text("utf-8"))]
    assert sorted(shown) == sorted((guide.parent / "observability" / "pictures").iterdir())
    assert all(file.stat().st_size < MOST_BYTES for file in shown)


@pytest.mark.asyncio
async def test_a_real_prometheus_answers_every_panel_and_every_rule(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    variables = environment(amqp_url, database_url, hub.url, **QUICK)
    async with (
        running(variables) as app,
        Team(amqp_url) as team,
        Prometheus([f"127.0.0.1:{app.http.port}"], interval_s=0.5, rules=[ALERTS]) as prometheus,
    ):
        await prometheus.until("drover_generations_in_flight")
        await _play(team, hub, prometheus)
        await _every_panel_has_data(prometheus)
        await _every_rule_is_evaluated(prometheus)


async def _play(team: Team, hub: Sandbox, prometheus: Prometheus) -> None:
    """Some of everything: ends, a rejection, a reply that gets nowhere, a cut of the stream, an end that nobody tells,
    a throttle, a lost answer."""
    await team.send({"request_id": "bad", "input": {}})
    await _end(team, "first", reply_to="nobody")
    hub.cut_streams()
    hub.faults = Faults(events_dropped=1.0)
    await _end(team, "untold")
    hub.faults = Faults(posts_limited=1.0, retry_after="1")
    await team.send({"request_id": "throttled", "input": {"prompt": "x"}})
    await prometheus.until("drover_submission_paused == 1")
    hub.faults = Faults(answers_lost=1.0)
    await prometheus.until("drover_doubts_opened_total > 0")
    hub.faults = Faults()
    await team.end_of("throttled")
    await prometheus.until('drover_requests_total{state="succeeded"} == 5')
    await _end(team, "last")
    await prometheus.until('drover_requests_total{state="succeeded"} == 7')  # told is not yet scraped


async def _end(team: Team, name: str, **properties: str) -> None:
    """Two requests, played to their ends."""
    for number in range(2):
        await team.send({"request_id": f"{name}-{number}", "input": {"prompt": "a lighthouse"}}, **properties)
    for number in range(2):
        await team.end_of(f"{name}-{number}")


async def _every_panel_has_data(prometheus: Prometheus) -> None:
    for expression in (substituted(target["expr"], WINDOW) for _, target in QUERIES):
        if NOT_TOLD.search(expression):
            await prometheus.query(expression)  # no error, that is
        else:
            await prometheus.until(expression)
    (failed,) = await prometheus.query(substituted(_query_of("Failed"), WINDOW))
    assert float(failed["value"][1]) == 0.0
    (lead,) = await prometheus.query(substituted(_query_of("Leads"), WINDOW))
    assert lead["value"][1] == "1"
    (spent,) = await prometheus.query(substituted(_query_of("Dollars in 24 h"), WINDOW))
    assert float(spent["value"][1]) == pytest.approx(7 * PRICE, rel=0.15)  # increase() extrapolates


def _query_of(title: str) -> str:
    return next(str(target["expr"]) for name, target in QUERIES if name == title)


async def _every_rule_is_evaluated(prometheus: Prometheus) -> None:
    async with asyncio.timeout(20):
        while any(rule["health"] == "unknown" for rule in await prometheus.rules()):
            await asyncio.sleep(0.2)  # evaluated in turns
    rules = await prometheus.rules()
    assert len(rules) > 40
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}
    assert await prometheus.query('ALERTS{alertstate="firing"}') == []
