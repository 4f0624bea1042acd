"""The curve of back-offs is exact; jitter only shortens it, by half at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.retry import Backoff

backoffs = st.builds(Backoff, first=st.floats(0.001, 10), factor=st.floats(1, 10), limit=st.floats(0.001, 3600))


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10**9, 30)]
)
def test_delays_double_up_to_the_limit(failures: int, seconds: float) -> None:
    assert Backoff().delay(failures) == seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 3), (3, 9), (4, 20)])
def test_a_curve_has_its_own_factor_and_limit(failures: int, seconds: float) -> None:
    assert Backoff(first=1, factor=3, limit=20).delay(failures) == seconds


@pytest.mark.parametrize("failures", [0, -1])
def test_fewer_than_one_failure_counts_as_one(failures: int) -> None:
    assert Backoff().delay(failures) == Backoff().delay(1)


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_takes_up_to_half_of_the_delay(spread: float, share: float) -> None:
    assert Backoff().jittered(3, spread) == 2 * share


@given(backoffs, st.integers(1, 10**6))
def test_no_delay_exceeds_the_limit_and_none_is_shorter_than_the_one_before(backoff: Backoff, failures: int) -> None:
    assert backoff.delay(failures) <= backoff.delay(failures + 1) <= backoff.limit


@given(backoffs, st.integers(1, 100))
def test_a_jittered_delay_lies_between_half_and_all_of_it(backoff: Backoff, failures: int) -> None:
    delay = backoff.delay(failures)
    assert delay / 2 <= backoff.jittered(failures) <= delay


def test_those_who_failed_together_do_not_come_back_together() -> None:
    assert len({Backoff().jittered(3) for _ in range(20)}) > 1
