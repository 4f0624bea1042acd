"""The gatekeeper: when a request that was turned away comes again, and what metrics and readiness show."""

from __future__ import annotations

import pytest

from service.domain.gate import FAILURES, GatePolicy, Healthy, Held, Limited, Post, Reason, Signal, Unreachable
from service.telemetry import Metrics
from service.workers.gatekeeper import RETRY_SPREAD_S, Gatekeeper


class Watch:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Keeper:
    """A gatekeeper with a watch for a clock, and dice that show what they are told to."""

    def __init__(self, spread: float = 1.0) -> None:
        self.watch = Watch()
        self.metrics = Metrics()
        self.keeper = Gatekeeper(GatePolicy(8), self.metrics, clock=self.watch, dice=lambda: spread)

    def answered(self, *signals: Signal | None, namespace: str | None = None) -> None:
        """One POST after the other, each with its answer."""
        for signal in signals:
            permit = self.keeper.permit(1)
            assert permit is not None
            self.keeper.ended(Post(self.keeper.begun(permit), namespace), signal)

    def metric(self, name: str, **labels: str) -> float | None:
        """What it shows; None: it was never set."""
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1.0), (3, 4.0), (10, 60.0)])
def test_behind_an_open_gate_a_request_has_its_own_back_off(attempts: int, seconds: float) -> None:
    assert Keeper().keeper.retry_in(None, attempts) == seconds


def test_behind_a_closed_gate_a_request_comes_again_just_after_the_next_look() -> None:
    fixture = Keeper()
    fixture.answered(Limited(40.0))
    look_in = fixture.keeper.look_in()
    assert look_in is not None
    for attempts in (1, 3, 100):
        assert 0 < fixture.keeper.retry_in(None, attempts) - look_in <= RETRY_SPREAD_S


def test_however_often_it_was_the_probe_it_is_there_within_the_time_of_two_probes() -> None:
    fixture = Keeper()
    fixture.answered(Held(Reason.UNAUTHENTICATED))
    assert fixture.keeper.retry_in(None, 100) <= 15 + RETRY_SPREAD_S


def test_a_held_namespace_delays_its_own_requests_alone() -> None:
    fixture = Keeper()
    for _ in range(5):
        fixture.answered(Held(Reason.UNPAID), namespace="acme")
        fixture.watch.now += 20
    fixture.watch.now -= 20
    assert fixture.keeper.retry_in("acme", 1) > 10
    assert fixture.keeper.retry_in("other", 1) == fixture.keeper.retry_in(None, 1) == 1.0


def test_metrics_and_readiness_show_what_is_shut_and_why_until_it_is_open() -> None:
    fixture = Keeper()
    assert fixture.keeper.paused() == []
    fixture.answered(Held(Reason.UNPAID), namespace="acme")
    fixture.answered(Held(Reason.UNAUTHENTICATED))
    fixture.watch.now += 2.5
    assert [(told["scope"], told["reason"], told["for_s"]) for told in fixture.keeper.paused()] == [
        ("all", "unauthenticated", 2.5),
        ("namespace:acme", "unpaid", 2.5),
    ]
    assert fixture.metric("drover_submission_paused", scope="all", reason="unauthenticated") == 1
    assert fixture.metric("drover_submission_paused", scope="namespace:acme", reason="unpaid") == 1
    assert fixture.metric("drover_breaker_open") == 0
    fixture.answered(Healthy())
    assert fixture.metric("drover_submission_paused", scope="all", reason="unauthenticated") == 0
    fixture.answered(Healthy(), namespace="acme")
    assert fixture.metric("drover_submission_paused", scope="namespace:acme", reason="unpaid") == 0
    assert fixture.keeper.paused() == []


def test_the_breaker_has_a_metric_of_its_own() -> None:
    fixture = Keeper()
    fixture.answered(*[Unreachable()] * FAILURES)
    assert fixture.metric("drover_breaker_open") == 1
    fixture.watch.now += 1
    fixture.answered(Held(Reason.UNAUTHENTICATED))  # it answers again, and there is something else to mend
    assert fixture.metric("drover_breaker_open") == 0
    assert fixture.metric("drover_submission_paused", scope="all", reason="failing") == 0
    assert fixture.metric("drover_submission_paused", scope="all", reason="unauthenticated") == 1
