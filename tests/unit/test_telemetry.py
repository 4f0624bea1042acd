"""Metrics that stay true whatever is noted."""

from __future__ import annotations

from service.telemetry import Metrics


def test_a_stage_that_ends_before_it_begins_by_another_clock_takes_nothing_off_the_sum() -> None:
    metrics = Metrics()
    waited = metrics.stage("waiting")
    waited(10.0)
    waited(-0.05)
    labels = {"stage": "waiting"}
    assert metrics.registry.get_sample_value("drover_stage_duration_seconds_sum", labels) == 10.0
    assert metrics.registry.get_sample_value("drover_stage_duration_seconds_count", labels) == 2
