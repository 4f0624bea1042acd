"""Generations, models and errors of the hub, read tolerantly: every known variant, and no exception ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.facts import OutputReported
from service.domain.states import OutputStatus
from service.domain.upstream import ModelDescription
from service.hub.answers import read_error, read_generation, read_json, read_model, without_key

DONE: dict[str, Any] = {"generation_id": "g-1", "status": "succeeded", "media_type": "video"}
URL = "https://files.test/g-1.mp4"


def reported(document: object) -> OutputReported:
    report = read_generation(document)
    assert report is not None
    return report


# -- the key ----------------------------------------------------------------------------------------------------------

KEY = "oxen/abc+def=="


@pytest.mark.parametrize("quoted", [KEY, r"oxen\/abc+def==", r"oxen/abc\u002Bdef\u003d\u003d", r"C:\\oxen/abc+def=="])
def test_the_key_is_taken_out_however_json_spells_it(quoted: str) -> None:
    cleaned = without_key(f'{{"error": {{"title": "no such key: {quoted}", "detail": "a\\nb"}}}}'.encode(), KEY)
    told = read_error(read_json(cleaned))
    assert told is not None
    assert told[1] in ("no such key: ***: a\nb", "no such key: C:\\***: a\nb")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (
            {"error": {"type": "invalid_params", "title": "Bad", "detail": "num_frames"}},
            ("invalid_params", "Bad: num_frames"),
        ),
        ({"error": {"message": "no such model"}}, (None, "no such model")),
        ({"error": {"type": "unknown_error"}}, ("unknown_error", "unknown_error")),
        ({"error": {"title": "Twice", "message": "Twice"}}, (None, "Twice")),
        ({"error": {"type": 7, "title": "Bad"}}, (None, "Bad")),
    ],
)
def test_both_error_shapes_of_the_hub_are_read(document: object, told: tuple[str | None, str]) -> None:
    assert read_error(document) == told


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "error",
        {},
        {"error": None},
        {"error": "text"},
        {"error": {}},
        {"error": {"title": ""}},
        {"message": "x"},
    ],
)
def test_what_has_neither_shape_is_no_error_of_the_hub(document: object) -> None:
    assert read_error(document) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"{", b"NaN", b"[" * 100_000, b'"\\ud800"'])
def test_what_is_not_json_is_read_as_nothing(body: bytes) -> None:
    assert read_json(body) is None


# -- generations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        {"result_url": URL},
        {"url": URL},
        {"videos": [{"url": URL}]},
        {"video": {"url": URL}},
        {"images": [{"url": URL}]},
        {"result": {"url": URL}},
        {"result_url": None, "videos": [], "video": "", "url": URL},
        {"result_url": "", "videos": "none", "images": [{}], "result": {"url": URL}},
        {"videos": {"0": 1}, "images": [URL], "video": {"url": URL}},
    ],
)
def test_a_result_is_found_wherever_the_hub_puts_it(where: dict[str, Any]) -> None:
    assert reported({**DONE, **where}) == OutputReported("g-1", OutputStatus.SUCCEEDED, "video", URL)


def test_the_documented_place_of_a_result_goes_first() -> None:
    assert reported({**DONE, "result_url": URL, "url": "https://other.test/"}).url == URL


def test_a_success_without_a_result_is_still_a_success() -> None:
    assert reported(DONE).url is None


@pytest.mark.parametrize(
    "told",
    [
        {"error_message": "out of memory"},
        {"error": "out of memory"},
        {"error": {"message": "out of memory"}},
        {"error": {"type": "x", "title": "out of memory"}},
        {"error_message": None, "error": "out of memory"},
        {"error_message": "", "error": "out of memory"},
    ],
)
def test_a_failure_is_told_wherever_the_hub_puts_its_reason(told: dict[str, Any]) -> None:
    failure = reported({"generation_id": "g-1", "status": "failed", "url": URL, **told})
    assert failure == OutputReported("g-1", OutputStatus.FAILED, error="out of memory")


def test_a_failure_without_a_reason_is_still_a_failure() -> None:
    assert reported({"generation_id": "g-1", "status": "failed", "error": {"code": 5}}).error is None


@pytest.mark.parametrize("status", ["queued", "processing"])
def test_an_active_generation_has_neither_result_nor_reason(status: str) -> None:
    report = reported({**DONE, "status": status, "url": URL, "error": "retrying"})
    assert (report.status.value, report.url, report.error) == (status, None, None)


def test_extra_fields_and_odd_types_beside_do_not_matter() -> None:
    assert (
        reported({**DONE, "enqueued_at": 1.5, "seed": 7, "progress": None, "media_type": ["video"]}).media_type is None
    )


def test_nul_characters_which_no_database_takes_are_left_out() -> None:
    report = reported({**DONE, "media_type": "vid\x00eo", "url": "https://files.test/\x00x"})
    assert (report.media_type, report.url) == ("video", "https://files.test/x")
    assert reported({"generation_id": "g", "status": "failed", "error": "a\x00b"}).error == "ab"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "g-1",
        {},
        {"generation_id": "g-1"},
        {"status": "succeeded"},
        {"generation_id": "g-1", "status": "exploded"},
        {"generation_id": "g-1", "status": "SUCCEEDED"},
        {"generation_id": "g-1", "status": ["succeeded"]},
        {"generation_id": "", "status": "succeeded"},
        {"generation_id": 7, "status": "succeeded"},
        {"generation_id": "x" * 201, "status": "succeeded"},
        {"generation_id": "a\x00", "status": "succeeded"},
    ],
)
def test_what_has_no_id_or_no_known_status_is_no_generation(document: object) -> None:
    assert read_generation(document) is None


def test_a_status_nested_as_deep_as_the_parser_goes_is_no_status() -> None:
    depth = 1015
    document = read_json(b'{"generation_id":"g","status":' + b"[" * depth + b"]" * depth + b"}")
    assert document is not None
    assert read_generation(document) is None


# -- models -----------------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object"}


@pytest.mark.parametrize("key", ["json_request_schema", "request_schema"])
def test_the_schema_of_a_model_goes_by_two_names(key: str) -> None:
    document = {"id": "m", key: SCHEMA, "capabilities": {"input": ["text"], "output": ["video"]}}
    assert read_model(document, "m") == ModelDescription("m", ("video",), SCHEMA)


@pytest.mark.parametrize(
    ("document", "outputs"),
    [
        ({"id": "m"}, ()),
        ({"id": "m", "capabilities": None}, ()),
        ({"id": "m", "capabilities": {"output": "video"}}, ()),
        ({"id": "m", "capabilities": {"output": ["video", 7, None]}, "request_schema": "x"}, ("video",)),
    ],
)
def test_a_model_that_says_little_is_still_a_model(document: object, outputs: tuple[str, ...]) -> None:
    assert read_model(document, "m") == ModelDescription("m", outputs, None)


@pytest.mark.parametrize("schema", [True, {"type": "object"}, {"type": "no such type"}])
def test_what_the_hub_calls_a_schema_is_passed_on_unjudged(schema: object) -> None:
    described = read_model({"id": "m", "json_request_schema": schema}, "m")
    assert described is not None
    assert described.schema == schema


@pytest.mark.parametrize("document", [None, [], {}, {"id": 7}, {"error": {"message": "no"}}])
def test_what_has_no_id_is_no_model(document: object) -> None:
    assert read_model(document, "m") is None


# -- anything ---------------------------------------------------------------------------------------------------------

keys = st.sampled_from(
    [
        *("generation_id", "status", "media_type", "result_url", "url", "videos", "video", "images", "result"),
        *("error", "error_message", "title", "type", "message", "generations", "count"),
        *("id", "json_request_schema", "request_schema", "capabilities", "output"),
    ]
)
words = st.sampled_from([*OutputStatus, "g-1", "x"])
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | words
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=5), inner, max_size=6),
    max_leaves=15,
)
generations = st.fixed_dictionaries(
    {"generation_id": words, "status": words}, optional={"error": anything, "url": anything}
)


@given(anything | generations)
def test_no_document_makes_a_reader_raise(document: object) -> None:
    read_error(document)
    read_model(document, "m")
    report = read_generation(document)
    if report is not None:
        assert report.generation_id
        assert report.url is None or report.status is OutputStatus.SUCCEEDED
        assert report.error is None or report.status in (OutputStatus.FAILED, OutputStatus.CANCELLED)


@given(st.binary(max_size=80) | anything.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_a_reader_raise(body: bytes) -> None:
    read_generation(read_json(body))
