"""The alert rules: valid, about metrics that exist, each with a runbook, each fired and not fired by a test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.domain.gate import Reason
from service.telemetry import SECONDS
from tests.deploy.promql import asked_values, exposed, faults
from tests.e2e.test_metrics import LABELS
from tests.unit.test_documentation import headings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
OURS, RABBITMQ = FOLDER / "alerts.yaml", FOLDER / "alerts-rabbitmq.yaml"
CASES = Path(__file__).parent / "alerts.test.yaml"
RABBITMQ_CASES = Path(__file__).parent / "alerts-rabbitmq.test.yaml"
ALERTNAME = re.compile(r'alertname="(\w+)"')


def rules(*files: Path) -> list[dict[str, Any]]:
    return [
        rule for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"] for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules(OURS, RABBITMQ) if "alert" in rule]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", [OURS, RABBITMQ], ids=lambda file: file.name)
def test_the_rules_are_valid(file: Path) -> None:
    promtool("check", "rules", file)


@pytest.mark.parametrize("cases", [CASES, RABBITMQ_CASES], ids=lambda file: file.name)
def test_each_alert_fires_when_it_should_and_at_no_other_time(cases: Path) -> None:
    promtool("test", "rules", cases)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_there_are_cases_in_which_an_alert_fires_and_in_which_it_does_not(rule: dict[str, Any]) -> None:
    fired = set()
    for cases in (CASES, RABBITMQ_CASES):
        for test in yaml.safe_load(cases.read_text("utf-8"))["tests"]:
            for asked in test["promql_expr_test"]:
                fired |= {(name, bool(asked["exp_samples"])) for name in ALERTNAME.findall(asked["expr"])}
    assert {told for name, told in fired if name == rule["alert"]} == {True, False}


@pytest.mark.parametrize("rule", rules(OURS), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_nothing_that_no_replica_exposes(rule: dict[str, Any]) -> None:
    recorded = {rule["record"]: {"state", "cause"} for rule in rules(OURS) if "record" in rule}
    assert faults(rule["expr"], exposed() | recorded) == []


@pytest.mark.parametrize("rule", rules(OURS), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_no_value_that_a_label_never_has(rule: dict[str, Any]) -> None:
    known = LABELS | {
        "reason": {reason.value for reason in Reason},
        "le": {str(float(bound)) for bound in SECONDS},
        "job": {"(.*/)?drover"},
    }
    for label, value in asked_values(rule["expr"]):
        assert value in known[label], f"{label} is never {value}"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_what_happened_and_where_its_runbook_is(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Drover[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert len(said["summary"]) < 80
    assert len(said["description"]) > 80
    page, _, anchor = said["runbook_url"].partition("#")
    assert page == "deploy/OPERATING.md"
    assert anchor in headings(ROOT / page)


# -- the look at expressions sees what it is for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum by (job) (rate(drover_request_total[5m])) > 1", "nothing is called drover_request_total"),
        ('drover_requests_total{states="failed"} > 1', "drover_requests_total has no label states"),
        ("sum by (outcome) (drover_requests_total)", "there is no label outcome to group by"),
        ("drover_submit_duration_seconds", "nothing is called drover_submit_duration_seconds"),
        ('drover_submit_duration_seconds_count{le="10.0"}', ""),
        ('drover_leading{job="a", instance=~"b{2}"} == 0 unless on (job) drover_consuming offset 5m', ""),
        ("histogram_quantile(0.99, sum by (le, step) (rate(drover_batch_size_bucket[5m])))", ""),
    ],
)
def test_an_expression_about_what_is_not_there_is_seen(expression: str, fault: str) -> None:
    assert faults(expression, exposed()) == ([fault] if fault else [])


def test_the_values_that_an_expression_asks_for_are_told() -> None:
    asked = asked_values('a{state=~"failed|succeeded", by!="look"} / b{type=~"generation.(failed|expired)"}')
    assert list(asked) == [
        *[("state", "failed"), ("state", "succeeded"), ("by", "look")],
        *[("type", "generation.failed"), ("type", "generation.expired")],
    ]
