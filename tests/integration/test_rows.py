"""Arrays as text mean to Postgres what they meant here, whatever stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.postgres.rows import array_text, columns
from tests.integration.builders import Sql

pytestmark = pytest.mark.asyncio
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    ["", "NULL", "null", '"', "\\", '\\"', "{}", "{a,b}", ",", " ", "\n", "a b", "'", "é", "$1", "\U0001f600"]
)


@given(st.lists(st.none() | TEXTS, max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_texts_come_back_as_they_were(sql: Sql, values: list[str | None]) -> None:
    expected = [] if not any(value is not None for value in values) else values
    assert await sql.fetchval("select $1::text::text[]", array_text(values)) == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("integer", [0, -1, 2**31 - 1, None]),
        ("bigint", [2**63 - 1, None]),
        ("numeric", [2**64, None, 0]),
        ("boolean", [True, False, None]),
        ("uuid", [UUID(int=7), None]),
        (
            "timestamptz",
            [
                datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC),
                None,
                datetime(1, 1, 1, tzinfo=UTC),
                datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
            ],
        ),
    ],
)
async def test_so_do_numbers_truths_ids_and_times(sql: Sql, kind: str, values: Sequence[object]) -> None:
    assert await sql.fetchval(f"select $1::text::{kind}[]", array_text(values)) == list(values)


async def test_rows_become_columns_and_what_is_nothing_but_nulls_is_empty() -> None:
    rows = [("a", 1, None, b"x", None), ("b", None, None, None, None)]
    assert columns(rows, 5, whole=(3, 4)) == ['{"a","b"}', '{"1",NULL}', "{}", (b"x", None), ()]
    assert columns([], 3, whole=(2,)) == ["{}", "{}", ()]
