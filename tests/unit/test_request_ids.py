"""Which request a message speaks of, and whether two messages ask for the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.messages import Identified, Unidentified
from tests.unit.builders import a_body, accepted, identified, read, refused


def content_hash(body: object) -> bytes:
    found = identified(body).content_hash
    assert found is not None
    return found


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", ["a", "Z9._:-", "0" * 128, "--", "urn:uuid:6f0f5bb2"])
def test_an_id_has_1_to_128_letters_digits_and_four_marks(request_id: str) -> None:
    assert identified(a_body(request_id=request_id)).request_id == request_id


@pytest.mark.parametrize(
    "request_id", ["", "x" * 129, "a b", "a/b", "ä", "a\n", "a\x00", " a", "٣", 7, 1.5, True, [], {}, "a#"]
)
def test_a_malformed_id_cannot_be_answered_by_id(request_id: object) -> None:
    found = read(a_body(request_id=request_id))
    assert isinstance(found, Unidentified)
    assert found.fault.code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("body", [{"input": {}}, {"input": {}, "request_id": None}])
def test_the_message_id_stands_in_for_an_absent_request_id(body: object) -> None:
    assert accepted(body, message_id="m-1").request.request_id == "m-1"


def test_the_body_names_the_request_even_when_the_property_does_too() -> None:
    assert identified(a_body(request_id="r-1"), message_id="m-1").request_id == "r-1"


def test_a_malformed_id_in_the_body_is_not_replaced_by_the_message_id() -> None:
    assert isinstance(read(a_body(request_id="a b"), message_id="m-1"), Unidentified)


@pytest.mark.parametrize("message_id", ["", "a b", "x" * 129])
def test_a_malformed_message_id_is_no_id(message_id: str) -> None:
    assert isinstance(read({"input": {}}, message_id=message_id), Unidentified)


def test_a_message_without_any_id_is_unidentified() -> None:
    found = read({"input": {}})
    assert isinstance(found, Unidentified)
    assert "request_id" in found.fault.message


def test_a_message_that_is_otherwise_wrong_is_still_identified() -> None:
    found = identified(a_body(priority="high"))
    assert found.request_id == "r-1"
    assert found.accepted is None
    assert found.content_hash is not None


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b"null", b"\xff\xfe"])
def test_a_body_that_is_no_object_is_answered_under_its_message_id(body: bytes) -> None:
    found = identified(body, message_id="m-1")
    assert found.request_id == "m-1"
    assert found.content_hash is None
    assert found.fault is not None
    assert found.fault.code is ErrorCode.INVALID_MESSAGE
    assert isinstance(read(body), Unidentified)


# -- content ----------------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "request_id": "r-1",
    "input": {"prompt": "x", "frames_per_second": 24, "nested": {"a": 1, "b": 2}},
}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "input": {"nested": {"b": 2, "a": 1}, "frames_per_second": 24, "prompt": "x"}},
        {**BASE, "input": {**BASE["input"], "frames_per_second": 24.0}},
        {**BASE, "model": "ltx-2-3-quality-text-to-video"},
        {**BASE, "num_generations": 1},
        {**BASE, "target_namespace": None},
        {**BASE, "priority": 9},
        {**BASE, "deadline": "2031-01-01T00:00:00Z"},
        {**BASE, "metadata": {"order": 1}},
        {**BASE, "request_id": "r-2"},
    ],
    ids=["key order", "24.0", "model", "count", "namespace", "priority", "deadline", "metadata", "id"],
)
def test_the_same_content_has_the_same_hash(other: dict[str, Any]) -> None:
    assert content_hash(other) == content_hash(BASE)
    assert len(content_hash(BASE)) == 32


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "input": {**BASE["input"], "prompt": "y"}},
        {**BASE, "input": {**BASE["input"], "frames_per_second": 25}},
        {**BASE, "input": {**BASE["input"], "frames_per_second": "24"}},
        {**BASE, "input": {**BASE["input"], "seed": 1}},
        {**BASE, "input": {**BASE["input"], "negative_prompt": None}},
        {**BASE, "input": {"prompt": "x"}},
        {**BASE, "model": "another"},
        {**BASE, "num_generations": 2},
        {**BASE, "target_namespace": "studio"},
    ],
)
def test_other_content_has_another_hash(other: dict[str, Any]) -> None:
    assert content_hash(other) != content_hash(BASE)


def test_arrays_keep_their_order_in_the_hash() -> None:
    one, two = ({"request_id": "r", "input": {"images": images}} for images in (["a", "b"], ["b", "a"]))
    assert content_hash(one) != content_hash(two)


def test_the_envelope_and_the_properties_do_not_count_for_the_content() -> None:
    event = {"specversion": "1.0", "id": "e-1", "source": "shop", "type": "order", "data": BASE}
    wrapped = identified(event, correlation_id="c", reply_to="q", message_id="m", source="other")
    assert wrapped.content_hash == content_hash(BASE)


def test_invalid_content_has_a_hash_too_since_a_known_id_is_looked_up_before_it_is_judged() -> None:
    faulty = {**BASE, "input": {**BASE["input"], "model": "smuggled"}}
    assert refused(faulty).code is ErrorCode.INVALID_INPUT
    assert content_hash(faulty) != content_hash(BASE)
    assert content_hash({**BASE, "priority": 99}) == content_hash(BASE)


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
inputs = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        scalars | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(inputs)
def test_how_the_json_was_written_does_not_matter(parameters: dict[str, Any]) -> None:
    body = {"request_id": "r-1", "input": parameters}
    reordered = {"input": dict(reversed(parameters.items())), "request_id": "r-1"}
    compact = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    spaced = json.dumps(reordered, ensure_ascii=True, indent=3).encode()
    one, two = read(compact), read(spaced)
    if isinstance(one, Identified) and isinstance(two, Identified):
        assert one.content_hash == two.content_hash
    else:
        assert isinstance(one, Unidentified) == isinstance(two, Unidentified)
