"""Field tables as bytes: what was read is written back unchanged, and one odd value hides no other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rabbit.fields import (
    Entry,
    encode_array,
    encode_table,
    encode_text,
    read_array,
    read_table,
    read_text,
    read_value,
)
from service.rabbit.properties import Properties
from tests.support.odd import header_lists


@given(header_lists)
def test_a_table_is_read_entry_by_entry_and_written_back_as_it_was(entries: list[Entry]) -> None:
    assert read_table(encode_table(entries)) == entries
    assert read_array(encode_array([value for _, value in entries])) == [value for _, value in entries]


@given(st.binary(max_size=60))
def test_whatever_is_no_table_is_a_value_error(raw: bytes) -> None:
    try:
        entries = read_table(raw)
    except ValueError:
        return
    assert encode_table(entries) == raw


@pytest.mark.parametrize(
    "raw", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\1\1", b"\0\0\0\2\1a", b"\0\0\0\3\1aZ", b"\0\0\0\3\1as"]
)
def test_what_is_cut_off_or_unknown_is_told(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|unknown type"):
        read_table(raw)


def test_every_type_that_the_client_library_writes_is_read() -> None:
    given = {
        "yes": True,
        "tiny": 1,
        "small": 300,
        "middle": 70_000,
        "large": 2**40,
        "half": 0.5,
        "text": "ä",
        "then": datetime(2030, 1, 31, tzinfo=UTC),
        "none": None,
        "raw": bytearray(b"\xff"),
        "list": [1, "b"],
        "table": {"a": {"b": 1}},
    }
    encoded = Properties.encode_property(Properties(), "headers", given)  # type: ignore[arg-type]  # a field table
    assert {name.decode(): read_value(value) for name, value in read_table(encoded)} == given


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (encode_text(b"\xff\xfe"), b"\xff\xfe"),
        (b"T" + b"\xff" * 8, b"\xff" * 8),
        (b"F" + encode_table([(b"\xff", b"V")]), encode_table([(b"\xff", b"V")])[4:]),
    ],
)
def test_a_value_that_nobody_can_read_stays_bytes(value: bytes, read: bytes) -> None:
    assert read_value(value) == read


def test_a_text_is_told_with_escapes_and_nothing_else_is_a_text() -> None:
    assert read_text(encode_text(b"a\xff")) == "a\\xff"
    assert read_text(b"t\x01") is None
    assert read_text(None) is None
