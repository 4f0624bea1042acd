"""Whatever the bytes of a message are, reading them gives an answer: odd JSON, odd envelopes, no JSON at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.messages import Identified, Message, Unidentified
from service.wire.envelope import CLOUDEVENTS_JSON, MAX_BODY_BYTES
from service.wire.requests import RequestBody, read_message
from tests.unit.builders import NOW, RULES, a_body, accepted, identified, paths, read, refused

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.placed", "data": a_body()}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# -- CloudEvents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", [None, "application/json", CLOUDEVENTS_JSON, f"{CLOUDEVENTS_JSON}; charset=utf-8"]
)
def test_a_request_may_come_in_a_cloudevents_envelope(content_type: str | None) -> None:
    new = accepted(EVENT, content_type=content_type)
    assert new.request.request_id == "r-1"
    assert new.input == {"prompt": "a lighthouse"}


def test_extension_attributes_and_optional_ones_are_allowed() -> None:
    accepted({**EVENT, "subject": "s", "time": "2030-01-01T00:00:00Z", "tenant": "a", "dataschema": "urn:x", "prio": 7})


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/vnd.shop+json", None]
)
def test_data_may_be_declared_as_any_json(kind: str | None) -> None:
    accepted({**EVENT, "datacontenttype": kind})


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", "1.0.1"),
        ("specversion", 1.0),
        ("specversion", None),
        ("id", ""),
        ("id", 7),
        ("source", ""),
        ("type", ""),
        ("type", None),
        ("datacontenttype", "text/xml"),
        ("data", "text"),
        ("data", None),
        ("data", [1]),
    ],
)
def test_a_faulty_attribute_of_the_envelope_is_named(attribute: str, value: object) -> None:
    fault = refused({**EVENT, attribute: value}, message_id="m-1")
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == [f"/{attribute}"]


@pytest.mark.parametrize("attribute", ["id", "source", "type", "data"])
def test_an_envelope_that_lacks_an_attribute_is_refused(attribute: str) -> None:
    event = {name: value for name, value in EVENT.items() if name != attribute}
    assert paths(refused(event, message_id="m-1")) == [f"/{attribute}"]


def test_what_is_sent_as_a_cloudevent_must_be_one() -> None:
    assert "/specversion" in paths(refused(a_body(), content_type=CLOUDEVENTS_JSON, message_id="m-1"))


def test_a_faulty_envelope_is_answered_under_the_id_in_its_data() -> None:
    found = identified({**EVENT, "specversion": "2.0"})
    assert found.request_id == "r-1"
    assert found.content_hash == identified(a_body()).content_hash


def test_the_id_of_the_envelope_is_no_request_id() -> None:
    assert isinstance(read({**EVENT, "data": {"input": {}}}), Unidentified)


def test_the_trace_of_the_envelope_stands_in_for_that_of_the_message() -> None:
    event = {**EVENT, "traceparent": TRACE, "tracestate": "a=b"}
    assert accepted(event).request.traceparent == TRACE
    assert accepted(event).request.tracestate == "a=b"
    assert accepted(event, traceparent="of-the-message").request.traceparent == "of-the-message"


def test_a_malformed_trace_is_ignored() -> None:
    request = accepted({**EVENT, "traceparent": "nonsense", "tracestate": "ä"}).request
    assert (request.traceparent, request.tracestate) == (None, None)


# -- JSON that is hard to keep ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" * 400, "1e400", "-1e400"])
def test_a_number_that_could_not_be_passed_on_exactly_is_refused(number: str) -> None:
    fault = refused(b'{"request_id":"r-1","input":{"list":[{"a":%s}]}}' % number.encode())
    assert fault.code is ErrorCode.INVALID_INPUT
    assert paths(fault) == ["/input/list/0/a"]


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "1e308", "-0.0"])
def test_a_number_at_the_edge_of_64_bits_is_taken(number: str) -> None:
    assert accepted(b'{"request_id":"r-1","input":{"a":%s}}' % number.encode()).input["a"] == json.loads(number)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"0x10", b"01", b"+1", b".5"])
def test_a_number_that_json_does_not_have_makes_a_body_unreadable(number: bytes) -> None:
    assert isinstance(read(b'{"request_id":"r-1","input":{"a":%s}}' % number), Unidentified)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [({"prompt": "a\x00b"}, "/input/prompt"), ({"a\x00": 1}, "/input"), ({"x": [{"~/": "\x00"}]}, "/input/x/0/~0~1")],
)
def test_a_nul_character_is_refused_where_it_stands(parameters: dict[str, Any], path: str) -> None:
    fault = refused(a_body(input=parameters))
    assert fault.code is ErrorCode.INVALID_INPUT
    assert paths(fault) == [path]


def test_unicode_beyond_the_first_plane_is_kept() -> None:
    prompt = "\U0001f3f4\u200d\u2620\ufe0f \U0010ffff e\u0301 \u202e"
    assert accepted(a_body(input={"prompt": prompt})).input["prompt"] == prompt


@pytest.mark.parametrize("escape", [rb"\ud800", rb"\udc00", rb"\ud800x"])
def test_half_a_character_is_not_json(escape: bytes) -> None:
    assert isinstance(read(b'{"request_id":"r-1","input":{"a":"%s"}}' % escape), Unidentified)


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_bottomless_nesting_is_refused_and_breaks_nothing(opened: bytes) -> None:
    closed = b"]" if opened == b"[" else b"}"
    for depth in (300, 20_000):
        body = b'{"request_id":"r-1","input":{"x":' + opened * depth + b"1" + closed * depth + b"}}"
        assert isinstance(read(body), Unidentified)


def test_deep_nesting_within_the_limit_is_taken() -> None:
    body = b'{"request_id":"r-1","input":{"x":' + b"[" * 150 + b"]" * 150 + b"}}"
    accepted(body)


def test_a_body_may_have_256_kib_and_not_a_byte_more() -> None:
    frame = len(json.dumps(a_body(input={"prompt": ""})))
    largest = json.dumps(a_body(input={"prompt": "x" * (MAX_BODY_BYTES - frame)})).encode()
    assert len(largest) == 256 * 1024
    accepted(largest)
    found = identified(largest + b" ", message_id="m-1")
    assert found.fault is not None
    assert str(len(largest) + 1) in found.fault.message


@pytest.mark.parametrize("body", [b'{"request_id":"r-1","input":{}} x', b'\xef\xbb\xbf{"request_id":"r-1","input":{}}'])
def test_nothing_may_stand_around_the_document(body: bytes) -> None:
    assert isinstance(read(body), Unidentified)


# -- anything ---------------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
fields = st.sampled_from([*RequestBody.model_fields, "specversion", "id", "source", "type", "data", "traceparent"])
bodies = st.recursive(
    st.dictionaries(fields, anything, max_size=8),
    lambda inner: st.builds(lambda data: {**EVENT, "data": data}, inner),
    max_leaves=2,
)


def assert_judged(body: bytes, **properties: Any) -> None:
    found = read_message(Message(body, **properties), RULES, NOW)
    if isinstance(found, Identified):
        assert (found.accepted is None) != (found.fault is None)
        if found.accepted is not None:
            assert len(found.accepted.content_hash) == 32
            assert found.content_hash == found.accepted.content_hash


@given(st.binary(max_size=300), st.sampled_from([None, "m-1", "", "\x00"]), st.sampled_from([None, CLOUDEVENTS_JSON]))
def test_no_bytes_make_reading_raise(body: bytes, message_id: str | None, content_type: str | None) -> None:
    assert_judged(body, message_id=message_id, content_type=content_type)


@given(anything | bodies, st.sampled_from([None, "m-1"]))
def test_no_json_makes_reading_raise(document: object, message_id: str | None) -> None:
    assert_judged(json.dumps(document, ensure_ascii=True).encode(), message_id=message_id)


@given(st.text(alphabet=st.characters(), max_size=200))
def test_no_text_makes_reading_raise(prompt: str) -> None:
    text = json.dumps(a_body(input={"prompt": prompt, prompt: 1}), ensure_ascii=False)
    assert_judged(text.encode("utf-8", "surrogatepass"))
    assert_judged(text.encode("utf-16", "surrogatepass"))
