"""What a defect leaves in the log: where and of what class, and none of the words that a library put into it."""

from __future__ import annotations

import sys

from service.domain.errors import StatementError
from service.tracebacks import render

CANARY = "tr0ub4dor"


def rendered(error: BaseException) -> str:
    """Of an error as it is caught."""
    try:
        raise error  # noqa: TRY301 - that is the test
    except BaseException:  # noqa: BLE001 - whatever it is
        return render(sys.exc_info())


def test_it_says_where_and_of_what_class_and_none_of_the_words() -> None:
    told = rendered(ValueError(CANARY))
    assert "in rendered" in told
    assert "ValueError (its text is left out)" in told
    assert CANARY not in told


def test_our_own_errors_keep_their_words_and_their_causes_do_not() -> None:
    error = StatementError("Postgres refused a statement (intake): 23514", "23514")
    error.__cause__ = KeyError(CANARY)
    told = rendered(error)
    assert "Postgres refused a statement (intake): 23514" in told
    assert told.index("KeyError (its text") < told.index("which led to") < told.index("StatementError")
    assert CANARY not in told


def test_a_cause_that_was_set_aside_is_left_out_and_a_ring_of_causes_ends() -> None:
    error = ValueError()
    error.__context__, error.__suppress_context__ = KeyError(), True
    assert "KeyError" not in rendered(error)
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert rendered(first)
