"""The schemas say what the code does: they are valid, and take exactly what is taken and what is written."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.contracts.documents import schemas
from service.contracts.events import EVENTS
from service.contracts.examples import FULL, MINIMAL, Example, examples
from service.contracts.schemas import CANCEL, ENVELOPED, REQUEST, components, message_schemas
from service.domain.errors import ErrorCode
from service.domain.facts import Fact
from service.domain.lifecycle import decide
from service.domain.messages import Cancel, Message
from service.domain.states import EventName, Fault, Request, RequestState
from service.wire.cancels import read_cancel
from service.wire.events import encode_accepted, encode_emissions, encode_rejected
from service.wire.json import dumps
from service.wire.requests import NOT_PARAMETERS, RequestRules
from tests.support.schemas import event_faults, faults, nodes, validator
from tests.unit.builders import NOW, RECEIVED, accepted, read
from tests.unit.test_lifecycle_properties import stories

RULES = RequestRules(target_namespaces=frozenset({"studio"}))
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
NAMES = sorted(message_schemas())


def shown(message: str) -> list[str]:
    """The examples of an incoming message, bare and enveloped."""
    return [name for name, example in examples().items() if example.message in (message, message + ENVELOPED)]


# -- as schemas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_valid_2020_12(name: str) -> None:
    schema = schemas()[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema)


def test_a_schema_that_is_none_is_seen() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.meta.validate({**schemas()[REQUEST], "required": "input"})


@pytest.mark.parametrize("name", sorted(components("#/")))
def test_asyncapi_reads_them_as_draft_7(name: str) -> None:
    jsonschema_rs.meta.validate({"$schema": DRAFT_7, **components("#/definitions/")[name]})


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_says_what_it_is_and_shows_it(name: str) -> None:
    schema = schemas()[name]
    assert schema["$id"] == f"urn:drover:schemas:v1:{name}"
    assert schema["title"].startswith("Generation")
    assert schema["description"]
    assert schema["examples"]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_drovers_own_is_described_or_constant(name: str) -> None:
    own = [schema for schema in nodes(schemas()[name]) if "properties" in schema]
    silent = [
        field
        for schema in own
        for field, told in schema["properties"].items()
        if not {"description", "const", "$ref"} & set(told)
    ]
    assert silent == []


def test_there_is_a_schema_for_every_routing_key() -> None:
    incoming = {REQUEST, CANCEL, REQUEST + ENVELOPED, CANCEL + ENVELOPED}
    assert set(NAMES) == incoming | {name.value for name in EventName}
    assert {name for name, message in message_schemas().items() if message.incoming} == incoming
    assert list(EVENTS) == list(EventName)


def test_every_error_code_is_listed() -> None:
    codes = components("#/")["Error"]["properties"]["code"]
    assert codes["x-extensible-enum"] == [code.value for code in ErrorCode]


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "example"), examples().items())
def test_every_example_fits_its_schema(name: str, example: Example) -> None:
    assert faults(example.message, example.body) == []


@pytest.mark.parametrize("name", shown(REQUEST))
def test_every_example_of_a_request_is_accepted_by_the_service(name: str) -> None:
    body = examples()[name].body
    request = accepted(body, rules=RULES).request
    assert request.request_id == body.get("data", body)["request_id"]


@pytest.mark.parametrize("name", shown(CANCEL))
def test_every_example_of_a_cancel_is_accepted_by_the_service(name: str) -> None:
    body = examples()[name].body
    assert read_cancel(Message(dumps(body))) == Cancel(body.get("data", body)["request_id"])


def test_the_full_request_has_every_field_and_the_events_every_name_status_and_code() -> None:
    told = examples()
    assert set(FULL) == set(message_schemas()[REQUEST].schema["properties"])
    assert {example.message for example in told.values()} == set(message_schemas())
    assert {example.code for example in told.values() if example.code} == set(ErrorCode)
    assert all(example.body["data"]["error"]["code"] == example.code for example in told.values() if example.code)
    assert told["partial"].body["data"]["status"] == "partial"


def test_examples_are_the_same_every_time() -> None:
    assert examples() == examples()


# -- what comes in ----------------------------------------------------------------------------------------------------

ODD: st.SearchStrategy[Any] = st.sampled_from([None, "", "x", 0, -1, True, [], {}, {"a": 1}])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "request_id": st.sampled_from([None, "r-1", "a" * 128, "a" * 129, "a b", "ä", "r-1\n", ""]) | ODD,
    "model": st.sampled_from(["m", "m" * 200, "m" * 201]) | ODD,
    "input": st.dictionaries(st.sampled_from(["prompt", "seed", *NOT_PARAMETERS]), ODD, max_size=3) | ODD,
    "num_generations": st.integers(-1, 6) | ODD,
    "target_namespace": st.sampled_from([None, "studio", "", 5]),
    "priority": st.integers(-2, 11) | ODD,
    "deadline": st.sampled_from(
        [
            "2030-01-31T12:00:00Z",
            "2030-01-31t12:00:00.25+02:00",
            "2030-01-31T12:00:00-23:59",
            "2030-01-31T12:00:00z",
            "2030-02-30T12:00:00Z",
            "2030-01-31T25:00:00Z",
            "2030-01-31 12:00:00Z",
            "2030-01-31T12:00:00",
            "2030-01-31",
            "soon",
            1_900_000_000,
        ]
    )
    | ODD,
    "metadata": st.dictionaries(st.text("abc", max_size=3), ODD, max_size=3) | ODD,
    "colour": ODD,
}
bodies: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=FIELDS) | st.fixed_dictionaries(
    {"input": st.just({})}, optional={name: field for name, field in FIELDS.items() if name != "input"}
)


@settings(max_examples=600)
@given(body=bodies, enveloped=st.booleans())
def test_the_request_schema_takes_what_the_service_takes_and_nothing_else(
    body: dict[str, Any], enveloped: bool
) -> None:
    name = REQUEST + ENVELOPED if enveloped else REQUEST
    document = {"specversion": "1.0", "id": "e", "source": "s", "type": "t", "data": body} if enveloped else body
    answer = read(document, RULES, message_id="m-1")
    taken = getattr(answer, "accepted", None) is not None
    assert validator(name, strict=False).is_valid(document) == taken, getattr(answer, "fault", None)


@settings(max_examples=200)
@given(body=st.fixed_dictionaries({}, optional={"request_id": FIELDS["request_id"], "colour": ODD}))
def test_the_cancel_schema_takes_what_the_service_takes_and_nothing_else(body: dict[str, Any]) -> None:
    taken = isinstance(read_cancel(Message(json.dumps(body).encode())), Cancel)
    assert validator(CANCEL, strict=False).is_valid(body) == taken


@settings(max_examples=200)
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "specversion": st.sampled_from(["1.0", "0.3", "1.0\n", 1.0]),
            **dict.fromkeys(("id", "source", "type", "data", "traceparent", "tracestate", "extension"), ODD),
            "datacontenttype": st.sampled_from(
                [
                    None,
                    "application/json",
                    "application/json; charset=utf-8",
                    "application/vnd.x+json",
                    "text/plain",
                    "",
                ]
            ),
        },
    )
)
def test_the_envelope_schema_takes_what_the_service_takes_and_nothing_else(changes: dict[str, Any]) -> None:
    document = {"specversion": "1.0", "id": "e", "source": "s", "type": "t", "data": MINIMAL, **changes}
    answer = read(document, RULES, message_id="m-1")
    taken = getattr(answer, "accepted", None) is not None
    assert validator(REQUEST + ENVELOPED, strict=False).is_valid(document) == taken


# -- what goes out ----------------------------------------------------------------------------------------------------

SEEDS = st.none() | st.integers(-(2**63), 2**64 - 1)


@settings(max_examples=500)
@given(story=stories(), seed=SEEDS, metadata=st.sampled_from([None, b"{}", b'{"a":[1,null]}']), traced=st.booleans())
def test_whatever_happens_to_a_request_its_events_fit_their_schemas(
    story: tuple[Request, list[Fact]], seed: int | None, metadata: bytes | None, traced: bool
) -> None:
    request, facts = story
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" if traced else None
    submitted_at = RECEIVED if request.state is RequestState.SUBMITTED else None
    request = replace(request, seed=seed, metadata=metadata, traceparent=trace, submitted_at=submitted_at)
    decision = decide(request, facts, NOW)
    for event in encode_emissions(decision.emissions if decision else (), NOW):
        assert event_faults(json.loads(event.body)) == []


@given(body=st.fixed_dictionaries({"input": st.just({"prompt": "x", "seed": 7})}, optional={"priority": st.just(9)}))
def test_the_accepted_event_fits_its_schema(body: dict[str, Any]) -> None:
    stored = accepted({"request_id": "r-1", **body}).request
    assert event_faults(json.loads(encode_accepted(stored, NOW).body)) == []


@pytest.mark.parametrize("request_id", ["r-1", ""])
@pytest.mark.parametrize("code", ErrorCode)
def test_a_rejection_fits_its_schema_with_and_without_an_id(request_id: str, code: ErrorCode) -> None:
    fault = Fault(code, "no", ({"path": "/input/seed", "message": "is no integer"},))
    event = encode_rejected(Message(b"{}"), request_id, fault, NOW, reply_to="q")
    assert event_faults(json.loads(event.body)) == []


def test_a_strict_reader_sees_what_the_schema_leaves_open() -> None:
    event = json.loads(json.dumps(examples()["failed"].body))
    assert event_faults(event) == []
    event["data"]["error"]["code"] = "new_code"
    assert event_faults(event) != []
    assert validator("generation.failed", strict=False).is_valid(event)
    event = {**examples()["failed"].body, "extra": 1}
    assert event_faults(event) != []
    assert validator("generation.failed", strict=False).is_valid(event)
