"""What is level, and what is not."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos.level import trend


def series(rise: float, *, start: float = 100.0, noise: float = 0.0, warm_up: float = 0.0) -> list[tuple[float, float]]:
    random = Random(1)  # noqa: S311 - to be repeated
    return [
        (float(second), start + rise * second / 120 - warm_up * max(0, 20 - second) + random.uniform(-noise, noise))
        for second in range(120)
    ]


def test_a_series_that_only_trembles_is_level() -> None:
    assert trend("memory", "MiB", series(0.0, noise=5), share=0.05, least=0).level


def test_a_series_that_rises_is_not_level() -> None:
    found = trend("memory", "MiB", series(20.0, noise=5), share=0.05, least=0)
    assert not found.level
    assert found.rise == pytest.approx(15, abs=3)


def test_what_rises_in_the_first_quarter_alone_is_level() -> None:
    assert trend("memory", "MiB", series(0.0, warm_up=3), share=0.05, least=0).level


def test_a_series_that_falls_is_level() -> None:
    assert trend("memory", "MiB", series(-50.0), share=0.05, least=0).level


def test_small_counts_may_change_by_what_is_allowed_at_the_least() -> None:
    steps = [(float(second), 4.0 if second < 60 else 5.0) for second in range(120)]
    assert trend("connections", "", steps, share=0.05, least=2).level
    assert not trend("connections", "", steps, share=0.05, least=0.5).level


def test_too_few_values_say_nothing() -> None:
    with pytest.raises(ValueError, match="say nothing"):
        trend("memory", "MiB", series(0.0)[:7], share=0.05, least=0)
