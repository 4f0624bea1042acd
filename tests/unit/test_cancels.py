"""Reading cancels: what counts as one, and what is said of what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.messages import Cancel, Message
from service.domain.states import Fault
from service.wire.cancels import read_cancel
from service.wire.envelope import MAX_BODY_BYTES, REQUEST_ID


def read(body: object, **properties: Any) -> Cancel | Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_cancel(Message(raw, **properties))


def test_a_cancel_names_its_request_and_says_where_an_answer_goes() -> None:
    assert read({"request_id": "r-1"}, reply_to="inbox", correlation_id="c") == Cancel("r-1", "c", "inbox")


def test_a_cancel_may_come_in_a_cloudevents_envelope() -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"request_id": "r-1"}}
    assert read({**envelope, "region": "eu"}) == Cancel("r-1")
    assert isinstance(read({**envelope, "id": ""}), Fault)


def test_the_message_id_of_a_cancel_names_no_request() -> None:
    assert isinstance(read({}, message_id="r-1"), Fault)


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "r-1", "reason": "no"},
        {"request_id": 7},
        {"request_id": ""},
        {"request_id": "r 1"},
        {"request_id": "r-1\n"},
        {"request_id": "r" * 129},
        ["r-1"],
        b"",
        b"{",
        b'{"request_id": "r-1"}' + b" " * MAX_BODY_BYTES,
    ],
)
def test_what_is_no_cancel_is_an_invalid_message(body: object) -> None:
    fault = read(body)
    assert isinstance(fault, Fault)
    assert fault.code is ErrorCode.INVALID_MESSAGE


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"request_id": text}).encode()))
def test_whatever_comes_is_a_usable_id_or_a_fault(body: bytes) -> None:
    found = read(body)
    assert isinstance(found, Fault) or REQUEST_ID.fullmatch(found.request_id)
