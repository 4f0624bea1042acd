"""The contract's table of a request, row by row: defaults, ranges, strictness."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from service.domain.errors import ErrorCode
from service.domain.states import RequestState
from service.wire.json import loggable
from service.wire.requests import MAX_METADATA_BYTES, RequestRules
from tests.unit.builders import NOW, RULES, a_body, accepted, identified, paths, refused


def test_a_prompt_alone_is_a_whole_request() -> None:
    new = accepted({"request_id": "r-1", "input": {"prompt": "a lighthouse"}})
    assert new.request.model == "ltx-2-3-quality-text-to-video"
    assert new.request.num_generations == 1
    assert new.request.target_namespace is None
    assert new.request.metadata is None
    assert new.request.seed is None
    assert new.request.state is RequestState.ACCEPTED
    assert new.request.sequence == 1
    assert new.request.received_at == NOW
    assert new.priority == 4
    assert new.deadline == NOW + timedelta(seconds=86_400)
    assert new.input == {"prompt": "a lighthouse"}


def test_every_field_that_is_given_is_kept() -> None:
    body = a_body(
        model="another-model",
        num_generations=4,
        target_namespace="studio",
        priority=9,
        deadline="2030-02-01T00:00:00Z",
        metadata={"order": 7},
    )
    new = accepted(body, RequestRules(target_namespaces=frozenset({"studio"})))
    assert (new.request.model, new.request.num_generations, new.priority) == ("another-model", 4, 9)
    assert new.request.target_namespace == "studio"
    assert new.deadline == datetime(2030, 2, 1, tzinfo=UTC)
    assert new.request.metadata == b'{"order":7}'


def test_the_operator_sets_the_deadline_of_requests_without_one() -> None:
    assert accepted(a_body(), RequestRules(default_deadline_s=60)).deadline == NOW + timedelta(seconds=60)


@pytest.mark.parametrize("value", [1, 2, 3, 4])
def test_one_to_four_generations_may_be_asked_for(value: int) -> None:
    assert accepted(a_body(num_generations=value)).request.num_generations == value


@pytest.mark.parametrize("value", range(10))
def test_priorities_go_from_0_to_9(value: int) -> None:
    assert accepted(a_body(priority=value)).priority == value


WRONG: dict[str, tuple[object, ...]] = {
    "num_generations": (0, 5, -1, "2", True, 1.0, 1.5, None, [1], 2**70),
    "priority": (-1, 10, "5", True, False, 4.0, 1.5, None, {}, 2**70),
    "model": ("", 7, None, True, ["a"], "m" * 201, "a\x00b"),
    "input": (None, "prompt", [], 1, True),
    "metadata": ("x", [], 1, True),
    "target_namespace": ("", 7, True, ["studio"]),
    "deadline": (0, 1893456000, True, "", "tomorrow", "2030-01-31", ["2030-01-31T12:00:00Z"]),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_value_of_another_type_or_range_is_an_invalid_message_that_names_the_field(field: str, value: object) -> None:
    fault = refused(a_body(**{field: value}))
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == [f"/{field}"]


@pytest.mark.parametrize("field", ["deadline", "metadata", "target_namespace"])
def test_an_optional_field_may_be_null(field: str) -> None:
    accepted(a_body(**{field: None}))


def test_input_is_required() -> None:
    fault = refused({"request_id": "r-1"})
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["/input"]


def test_an_unknown_field_is_an_error() -> None:
    fault = refused(a_body(prompt="beside the input"))
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["/prompt"]


def test_every_fault_is_told_at_once() -> None:
    assert set(paths(refused(a_body(priority=10, num_generations=0, surplus=1)))) == {
        "/priority",
        "/num_generations",
        "/surplus",
    }


def test_no_fault_repeats_a_value_of_the_request() -> None:
    secret = "a prompt that nobody else may read"
    body = {"request_id": "r-1", "input": secret, "priority": secret, "metadata": secret, "deadline": secret}
    assert secret not in repr(refused(body))


# -- input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "num_generations", "target_namespace", "response_format"])
def test_what_is_no_parameter_of_a_model_may_not_stand_in_the_input(name: str) -> None:
    fault = refused(a_body(input={"prompt": "x", name: "y"}))
    assert fault.code is ErrorCode.INVALID_INPUT
    assert paths(fault) == [f"/input/{name}"]


@pytest.mark.parametrize(("seed", "told"), [(7, 7), (0, 0), (None, None), (True, None), ("7", None), (7.5, None)])
def test_the_seed_of_the_requester_is_reported_when_it_is_an_integer(seed: object, told: int | None) -> None:
    assert accepted(a_body(input={"prompt": "x", "seed": seed})).request.seed == told


# -- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_may_have_8_kib_and_not_a_byte_more() -> None:
    frame = len(b'{"k":""}')
    accepted(a_body(metadata={"k": "x" * (MAX_METADATA_BYTES - frame)}))
    fault = refused(a_body(metadata={"k": "x" * (MAX_METADATA_BYTES - frame + 1)}))
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["/metadata"]


def test_the_size_of_metadata_is_counted_in_bytes() -> None:
    assert paths(refused(a_body(metadata={"k": "é" * (MAX_METADATA_BYTES // 2)}))) == ["/metadata"]


@pytest.mark.parametrize(
    ("value", "path"), [("\x00", "/metadata/k"), (2**64, "/metadata/k"), (-(2**63) - 1, "/metadata/k")]
)
def test_metadata_that_could_not_be_echoed_exactly_is_refused(value: object, path: str) -> None:
    fault = refused(a_body(metadata={"k": value}))
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == [path]


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0.1, 1e308, "\U0001f600"])
def test_metadata_at_the_edge_of_what_fits_is_kept(value: object) -> None:
    kept = accepted(a_body(metadata={"k": value})).request.metadata
    assert kept is not None
    assert json.loads(kept) == {"k": value}


# -- target_namespace -------------------------------------------------------------------------------------------------


def test_only_a_namespace_that_the_operator_allows_may_be_billed() -> None:
    rules = RequestRules(target_namespaces=frozenset({"studio", "lab"}))
    assert accepted(a_body(target_namespace="lab"), rules).request.target_namespace == "lab"
    fault = refused(a_body(target_namespace="labs"), rules)
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["/target_namespace"]


def test_without_allowed_namespaces_none_may_be_named() -> None:
    assert paths(refused(a_body(target_namespace="studio"), RULES)) == ["/target_namespace"]


# -- deadline ---------------------------------------------------------------------------------------------------------

DEADLINES = [
    ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
    ("2030-01-31t12:00:00z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
    ("2030-01-31T12:00:00.5Z", datetime(2030, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
    ("2030-01-31T12:00:00.123456789Z", datetime(2030, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
    ("2030-01-31T12:00:00+05:30", datetime(2030, 1, 31, 6, 30, tzinfo=UTC)),
    ("2030-01-31T12:00:00-23:59", datetime(2030, 2, 1, 11, 59, tzinfo=UTC)),
    ("2030-01-31T12:00:00-00:00", datetime(2030, 1, 31, 12, tzinfo=UTC)),
    ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
    ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("9999-12-31T23:59:59+00:01", datetime(9999, 12, 31, 23, 58, 59, tzinfo=UTC)),
]


@pytest.mark.parametrize(("text", "moment"), DEADLINES)
def test_a_deadline_is_an_rfc_3339_time_and_kept_in_utc(text: str, moment: datetime) -> None:
    deadline = accepted(a_body(deadline=text)).deadline
    assert deadline == moment
    assert deadline.tzinfo in (UTC, UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31T12:00:00",
        "2030-01-31 12:00:00Z",
        "2030-01-31T12:00Z",
        "2030-01-31T12:00:00+0100",
        "2030-01-31T12:00:00+01",
        "2030-01-31T12:00:00.Z",
        "2030-02-30T12:00:00Z",
        "2029-02-29T00:00:00Z",
        "2030-13-01T00:00:00Z",
        "2030-01-31T24:00:00Z",
        "2030-01-31T12:00:60Z",
        "2030-01-31T12:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "+10000-01-01T00:00:00Z",
        " 2030-01-31T12:00:00Z",
        "2030-01-31T12:00:00Z\n",
        "٢٠٣٠-01-31T12:00:00Z",
        "1893456000",
        "P1D",
    ],
)
def test_any_other_spelling_of_a_deadline_is_refused(text: str) -> None:
    fault = refused(a_body(deadline=text))
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["/deadline"]


def test_a_deadline_that_has_passed_is_no_fault_of_the_message() -> None:
    assert accepted(a_body(deadline="2001-01-01T00:00:00Z")).deadline < NOW


# -- reply_to and the other properties --------------------------------------------------------------------------------


def test_an_answer_may_not_go_to_a_queue_of_our_own() -> None:
    rules = RequestRules(own_queues=frozenset({"generation.requests"}))
    fault = refused(a_body(), rules, reply_to="generation.requests")
    assert fault.code is ErrorCode.INVALID_MESSAGE
    assert paths(fault) == ["property reply_to"]
    assert accepted(a_body(), rules, reply_to="generation.requests.mine").request.reply_to == "generation.requests.mine"


@pytest.mark.parametrize(
    ("reply_to", "allowed"),
    [("team-a.replies", True), ("team-a.", True), ("xteam-a.", False), ("team-a.replies!", False), ("", False)],
)
def test_a_reply_to_must_match_the_operators_pattern_as_a_whole(reply_to: str, allowed: bool) -> None:
    rules = RequestRules(reply_to_pattern=re.compile(r"team-[ab]\.\w*"))
    assert (identified(a_body(), rules, reply_to=reply_to).fault is None) == allowed


def test_a_pattern_asks_nothing_of_a_request_without_reply_to() -> None:
    assert accepted(a_body(), RequestRules(reply_to_pattern=re.compile("never"))).request.reply_to is None


def test_the_properties_of_the_message_are_kept_with_the_request() -> None:
    request = accepted(
        a_body(), correlation_id="c-1", reply_to="q", source="team-b", traceparent="00-a", tracestate="k=v"
    ).request
    assert (request.correlation_id, request.reply_to, request.source) == ("c-1", "q", "team-b")
    assert (request.traceparent, request.tracestate) == ("00-a", "k=v")


def test_a_property_that_is_no_text_is_refused_by_name() -> None:
    assert paths(refused(a_body(), unreadable=("correlation_id", "reply_to"))) == [
        "property correlation_id",
        "property reply_to",
    ]


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("", ""),
        ("/input", "/input"),
        ("/input/num_frames", "/input/num_frames"),
        ("/input/shots/0/prompt", "/input/shots"),
        ("/input/alice@example.org", "/input/*"),
        ("/metadata/customer", "/metadata"),
        ("/what they want", "/*"),
        ("/" + "x" * 65, "/*"),
        ("property reply_to", "property reply_to"),
    ],
)
def test_a_path_is_logged_without_what_a_person_may_have_written_in_it(path: str, logged: str) -> None:
    assert loggable(path) == logged
