"""Events as the contract shapes them: CloudEvents 1.0, with exactly the fields that consumers were promised."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.domain.decisions import Emission
from service.domain.errors import ErrorCode
from service.domain.facts import HubAccepted, OutputReported
from service.domain.lifecycle import decide
from service.domain.messages import Message, OutboxEvent
from service.domain.states import EventName, Fault, OutputStatus, Request, RequestState
from service.wire.events import encode_accepted, encode_emissions, encode_rejected
from tests.unit.builders import NOW, RECEIVED, a_body, a_request, accepted, cancelled, failed, succeeded

ENVELOPE = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "sequence", "data"}
DATA = [
    "request_id",
    "status",
    "model",
    "outputs",
    "error",
    "seed",
    "attempts",
    "received_at",
    "submitted_at",
    "finished_at",
    "metadata",
]
OUTPUT = ["index", "generation_id", "status", "media_type", "url", "error"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAULT = Fault(
    ErrorCode.INVALID_INPUT, "The input does not fit.", ({"path": "/input/seed", "message": "is no integer"},)
)


def document(event: OutboxEvent) -> dict[str, Any]:
    parsed = json.loads(event.body)
    assert isinstance(parsed, dict)
    return parsed


def ended(*facts: OutputReported, **changes: Any) -> OutboxEvent:
    """The terminal event of a submitted request after these facts."""
    decision = decide(a_request(RequestState.SUBMITTED, len(facts), **changes), facts, NOW)
    assert decision is not None
    return encode_emissions(decision.emissions, NOW)[-1]


def rejected(message: Message, fault: Fault = FAULT, **options: Any) -> OutboxEvent:
    options.setdefault("reply_to", message.reply_to)
    return encode_rejected(message, "r-1", fault, NOW, **options)


# -- the envelope -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in EventName if name is not EventName.REJECTED])
def test_every_event_is_a_cloudevent_under_its_own_name(name: EventName) -> None:
    (event,) = encode_emissions([Emission(name, a_request(sequence=7))], NOW)
    told = document(event)
    assert set(told) == ENVELOPE
    assert told["specversion"] == "1.0"
    assert told["source"] == "drover"
    assert told["type"] == f"drover.{name.value}.v1"
    assert told["subject"] == "r-1"
    assert told["sequence"] == "0000000007"
    assert told["time"] == "2030-01-31T12:00:00Z"
    assert told["datacontenttype"] == "application/json"
    assert event.routing_key == event.type == name.value
    assert event.stored


def test_times_are_rfc_3339_in_utc_with_a_z() -> None:
    moment = NOW.replace(microsecond=120_000)
    told = document(encode_accepted(a_request(received_at=moment), moment))
    assert told["time"] == told["data"]["received_at"] == "2030-01-31T12:00:00.120000Z"


@pytest.mark.parametrize(("sequence", "text"), [(1, "0000000001"), (9_999_999_999, "9999999999")])
def test_a_sequence_has_ten_digits_so_that_it_sorts_as_text(sequence: int, text: str) -> None:
    assert document(encode_accepted(a_request(sequence=sequence), NOW))["sequence"] == text


def test_ids_are_new_uuids_of_version_7() -> None:
    events = encode_emissions([Emission(EventName.OUTPUT, a_request())] * 3, NOW)
    assert {UUID(event.event_id).version for event in events} == {7}
    assert len({event.event_id for event in events}) == 3
    assert [document(event)["id"] for event in events] == [event.event_id for event in events]


def test_the_trace_goes_along_where_there_is_one() -> None:
    event = encode_accepted(a_request(traceparent=TRACE, tracestate="a=b"), NOW)
    assert document(event)["traceparent"] == TRACE
    assert set(document(event)) == ENVELOPE | {"traceparent"}
    assert (event.traceparent, event.tracestate) == (TRACE, "a=b")


def test_the_correlation_id_goes_along_with_every_event_and_the_reply_address_with_the_last() -> None:
    request = a_request(correlation_id="c-1", reply_to="team-a.replies")
    for name in EventName:
        (event,) = encode_emissions([Emission(name, request)], NOW)
        assert event.correlation_id == "c-1"
        assert event.terminal == name.terminal
        assert event.reply_to == ("team-a.replies" if name.terminal else None)


def test_exactly_five_names_are_terminal() -> None:
    assert {name.value.removeprefix("generation.") for name in EventName if name.terminal} == {
        "succeeded",
        "failed",
        "cancelled",
        "expired",
        "rejected",
    }


# -- data -------------------------------------------------------------------------------------------------------------


def test_data_has_the_promised_fields_in_the_promised_order() -> None:
    data = document(ended(succeeded("g0"), seed=7, submitted_at=NOW))["data"]
    assert list(data) == DATA
    assert list(data["outputs"][0]) == OUTPUT
    assert data == {
        "request_id": "r-1",
        "status": "succeeded",
        "model": "ltx-2-3-quality-text-to-video",
        "outputs": [
            {
                "index": 0,
                "generation_id": "g0",
                "status": "succeeded",
                "media_type": "video",
                "url": "https://files.test/g0.mp4",
                "error": None,
            }
        ],
        "error": None,
        "seed": 7,
        "attempts": 1,
        "received_at": "2030-01-31T11:59:00Z",
        "submitted_at": "2030-01-31T12:00:00Z",
        "finished_at": "2030-01-31T12:00:00Z",
        "metadata": None,
    }
    assert RECEIVED < NOW


def test_an_accepted_request_has_no_outputs_yet() -> None:
    data = document(encode_accepted(a_request(RequestState.ACCEPTED), NOW))["data"]
    assert (data["status"], data["outputs"], data["submitted_at"], data["finished_at"]) == ("accepted", [], None, None)


def test_each_event_shows_the_request_as_it_stood_then() -> None:
    decision = decide(a_request(outputs=2), [HubAccepted(("g0", "g1")), failed("g0"), succeeded("g1")], NOW)
    assert decision is not None
    told = [document(event)["data"] for event in encode_emissions(decision.emissions, NOW)]
    assert [data["status"] for data in told] == ["submitted", "submitted", "submitted", "partial"]
    assert [[output["status"] for output in data["outputs"]] for data in told] == [
        ["queued", "queued"],
        ["failed", "queued"],
        ["failed", "succeeded"],
        ["failed", "succeeded"],
    ]


def test_a_failed_output_says_why_in_its_own_place() -> None:
    data = document(ended(failed("g0", "out of memory"), cancelled("g1")))["data"]
    assert data["outputs"][0]["error"] == {"code": "upstream_failed", "message": "out of memory", "details": []}
    assert data["outputs"][1]["error"]["code"] == "cancelled"
    assert data["error"] == {"code": "upstream_failed", "message": "out of memory", "details": []}


@pytest.mark.parametrize("status", [OutputStatus.QUEUED, OutputStatus.PROCESSING, OutputStatus.SUCCEEDED])
def test_an_output_that_has_not_failed_has_no_error(status: OutputStatus) -> None:
    request = a_request(RequestState.SUBMITTED)
    outputs = tuple(replace(output, status=status, error="left over") for output in request.outputs)
    (event,) = encode_emissions([Emission(EventName.OUTPUT, replace(request, outputs=outputs))], NOW)
    assert document(event)["data"]["outputs"][0]["error"] is None


def test_a_fault_is_told_with_its_details() -> None:
    request = a_request(RequestState.FAILED, error=FAULT, finished_at=NOW)
    (event,) = encode_emissions([Emission(EventName.FAILED, request)], NOW)
    assert document(event)["data"]["error"] == {
        "code": "invalid_input",
        "message": "The input does not fit.",
        "details": [{"path": "/input/seed", "message": "is no integer"}],
    }


def test_metadata_is_echoed_to_the_byte() -> None:
    raw = b'{"b":1,"a":[18446744073709551615,0.1,"\\u00e9\xc3\xa9"],"b2":{}}'
    event = encode_accepted(a_request(metadata=raw), NOW)
    assert b'"metadata":' + raw in event.body


@given(
    st.dictionaries(
        st.text(max_size=9),
        st.none() | st.text() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False),
        max_size=5,
    )
)
def test_metadata_comes_back_as_the_same_document(metadata: dict[str, Any]) -> None:
    clean = json.loads(json.dumps(metadata).replace("\\u0000", ""))
    request = accepted(a_body(metadata=clean)).request
    assert document(encode_accepted(request, NOW))["data"]["metadata"] == clean


# -- rejections -------------------------------------------------------------------------------------------------------


def test_a_rejection_is_the_terminal_answer_to_a_message_that_was_not_accepted() -> None:
    event = rejected(Message(b"{}", correlation_id="c-1", reply_to="q", traceparent=TRACE))
    told = document(event)
    assert told["type"] == "drover.generation.rejected.v1"
    assert told["data"]["status"] == "rejected"
    assert told["data"]["error"]["code"] == "invalid_input"
    assert list(told["data"]) == DATA
    assert (told["data"]["outputs"], told["data"]["attempts"]) == ([], 0)
    assert told["data"]["received_at"] == told["data"]["finished_at"] == "2030-01-31T12:00:00Z"
    assert (event.terminal, event.stored, event.routing_key) == (True, False, "generation.rejected")
    assert (event.correlation_id, event.reply_to, told["traceparent"]) == ("c-1", "q", TRACE)


def test_a_redelivered_message_is_rejected_under_the_same_id() -> None:
    message = Message(b'{"x":1}', message_id="m", correlation_id="c", reply_to="q")
    again = replace(message)
    assert rejected(message).event_id == rejected(again).event_id
    assert UUID(rejected(message).event_id).version == 5


BASE = Message(b'{"x":1}', message_id="m", correlation_id="c", reply_to="q")


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, body=b'{"x":2}'),
        replace(BASE, message_id="n"),
        replace(BASE, message_id=None),
        replace(BASE, correlation_id="d"),
        replace(BASE, reply_to="p"),
        replace(BASE, message_id="c", correlation_id="m"),
    ],
)
def test_another_message_is_rejected_under_another_id(other: Message) -> None:
    assert rejected(other).event_id != rejected(BASE).event_id


def test_the_same_message_rejected_for_another_reason_has_another_id() -> None:
    conflict = Fault(ErrorCode.IDEMPOTENCY_CONFLICT, "known with other content")
    assert rejected(BASE, conflict).event_id != rejected(BASE).event_id


def test_a_rejection_for_the_sender_alone_has_no_routing_key() -> None:
    event = rejected(BASE, reply_only=True)
    assert event.routing_key is None
    assert event.reply_to == "q"


def test_a_rejection_without_a_request_id_has_no_subject() -> None:
    event = encode_rejected(BASE, "", FAULT, NOW, reply_to="q")
    told = document(event)
    assert "subject" not in told
    assert told["data"]["request_id"] is None
    assert told["data"]["model"] is None


def test_an_event_of_any_request_is_compact_json() -> None:
    request: Request = a_request()
    assert not re.search(rb'": |, "', encode_accepted(request, NOW).body)
