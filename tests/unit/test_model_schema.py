"""Schemas of models, the first one's parameters and odd ones; and the seeds that drover chooses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.messages import DEFAULT_MODEL
from service.domain.states import Fault
from service.wire import model_schema
from service.wire.builtin_models import BUILTIN_SCHEMAS
from service.wire.model_schema import BrokenSchemaError, ModelSchema
from service.wire.schema_faults import MAX_DETAILS, MAX_MESSAGE_CHARS
from service.wire.seeds import SEED_LIMIT
from tests.unit.builders import paths

LTX = ModelSchema.compile(DEFAULT_MODEL, BUILTIN_SCHEMAS[DEFAULT_MODEL])
PROMPT = {"prompt": "a lighthouse"}


def with_properties(properties: dict[str, Any], **more: Any) -> ModelSchema:
    return ModelSchema.compile("m", {"type": "object", "properties": properties, **more})


def fault_of(schema: ModelSchema, parameters: dict[str, Any]) -> Fault:
    fault = schema.fault(parameters)
    assert fault is not None
    return fault


# -- LTX 2.3 Quality --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "x" * 10_000),
        ("num_frames", 9),
        ("num_frames", 121),
        ("num_frames", 481),
        ("num_frames", 121.0),
        ("resolution", "landscape_16_9"),
        ("resolution", "square_hd"),
        ("frames_per_second", 1),
        ("frames_per_second", 23.976),
        ("frames_per_second", 60),
        ("generate_audio", True),
        ("generate_audio", False),
        ("video_quality", "low"),
        ("video_quality", "medium"),
        ("video_quality", "high"),
        ("video_quality", "maximum"),
        ("negative_prompt", ""),
        ("seed", 0),
        ("seed", -1),
        ("seed", 2**64 - 1),
        ("a_parameter_of_tomorrow", 1),
    ],
)
def test_a_parameter_that_the_model_takes_passes(name: str, value: object) -> None:
    assert LTX.fault({**PROMPT, name: value}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", 7),
        ("prompt", None),
        ("prompt", ["a"]),
        ("num_frames", 8),
        ("num_frames", 482),
        ("num_frames", 121.5),
        ("num_frames", "121"),
        ("num_frames", True),
        ("resolution", 1080),
        ("frames_per_second", 0.5),
        ("frames_per_second", 60.1),
        ("frames_per_second", "24"),
        ("generate_audio", "yes"),
        ("generate_audio", 1),
        ("video_quality", "ultra"),
        ("video_quality", None),
        ("negative_prompt", 0),
        ("seed", 1.5),
        ("seed", "7"),
    ],
)
def test_a_parameter_that_the_model_does_not_take_is_told_by_its_path(name: str, value: object) -> None:
    fault = fault_of(LTX, {**PROMPT, name: value})
    assert fault.code is ErrorCode.INVALID_INPUT
    assert set(paths(fault)) == {f"/input/{name}"}
    assert all(detail["message"] for detail in fault.details)


def test_a_missing_prompt_is_told_by_the_path_of_the_prompt() -> None:
    assert paths(fault_of(LTX, {})) == ["/input/prompt"]


def test_every_fault_of_an_input_is_told_at_once() -> None:
    assert set(paths(fault_of(LTX, {"num_frames": 1, "frames_per_second": 99, "seed": "x"}))) == {
        "/input/prompt",
        "/input/num_frames",
        "/input/frames_per_second",
        "/input/seed",
    }


# -- odd schemas ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, {}])
def test_without_a_schema_every_input_passes_and_no_seed_is_chosen(schema: dict[str, Any] | None) -> None:
    unjudged = ModelSchema.compile("m", schema)
    assert unjudged.fault({"anything": [1]}) is None
    assert unjudged.choose_seed({}, 1) is None


def test_unknown_keywords_are_ignored() -> None:
    schema = with_properties({"a": {"type": "integer", "x-order": 1, "renderType": "slider"}}, basic=["a"])
    assert schema.fault({"a": 1}) is None
    assert paths(fault_of(schema, {"a": "1"})) == ["/input/a"]


def test_a_reference_inside_the_document_is_followed() -> None:
    schema = with_properties({"size": {"$ref": "#/$defs/size"}}, **{"$defs": {"size": {"enum": ["s", "l"]}}})
    assert schema.fault({"size": "s"}) is None
    assert paths(fault_of(schema, {"size": "xl"})) == ["/input/size"]


@pytest.mark.parametrize(
    "reference", ["https://schemas.invalid/x.json", "http://127.0.0.1:1/x", "file:///etc/hostname", "#/$defs/nowhere"]
)
def test_a_reference_to_elsewhere_is_not_fetched_and_breaks_the_schema(reference: str) -> None:
    with pytest.raises(BrokenSchemaError, match="model 'm'"):
        with_properties({"a": {"$ref": reference}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": 5},
        {"required": "prompt"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"minimum": "0"}}},
        {"$schema": "https://schemas.invalid/of-our-own"},
    ],
)
def test_what_is_no_json_schema_is_told_as_such(schema: dict[str, Any]) -> None:
    with pytest.raises(BrokenSchemaError):
        ModelSchema.compile("m", schema)


@pytest.mark.parametrize(
    ("property_", "good", "bad", "path"),
    [
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, ["a"], ["a", 1], "/input/p/1"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, "x", "/input/p"),
        ({"type": ["number", "null"]}, None, "x", "/input/p"),
        ({"const": 1}, 1, 2, "/input/p"),
        ({"type": "object", "required": ["deep"]}, {"deep": 1}, {}, "/input/p/deep"),
        ({"type": "object", "additionalProperties": False}, {}, {"surplus": 1}, "/input/p/surplus"),
    ],
)
def test_any_shape_of_parameter_is_judged(property_: dict[str, Any], good: object, bad: object, path: str) -> None:
    schema = with_properties({"p": property_})
    assert schema.fault({"p": good}) is None
    assert paths(fault_of(schema, {"p": bad})) == [path]


def test_a_name_with_slashes_and_tildes_is_escaped_in_its_path() -> None:
    assert paths(fault_of(with_properties({"a/b~c": {"type": "integer"}}), {"a/b~c": "x"})) == ["/input/a~1b~0c"]


def test_an_older_draft_is_judged_by_its_own_rules() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": {"n": {"type": "integer", "minimum": 3, "exclusiveMinimum": True}},
    }
    assert paths(fault_of(ModelSchema.compile("m", schema), {"n": 3})) == ["/input/n"]


def test_what_is_told_of_a_hopeless_input_has_a_bound() -> None:
    schema = with_properties({"list": {"items": {"type": "integer"}}})
    fault = fault_of(schema, {"list": ["x" * 1000] * 500})
    assert len(fault.details) == MAX_DETAILS
    assert all(len(str(detail["message"])) <= MAX_MESSAGE_CHARS for detail in fault.details)


# -- seeds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def any_range_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few seeds there are."""
    monkeypatch.setattr(model_schema, "LEAST_MARKS", 1)


def seeds(schema: ModelSchema, parameters: dict[str, Any] | None = None, times: int = 50) -> set[int | None]:
    return {schema.choose_seed(parameters or {}, 1) for _ in range(times)}


def test_a_seed_is_chosen_where_the_model_takes_one_and_the_request_gave_none() -> None:
    chosen = seeds(LTX, PROMPT)
    assert all(isinstance(seed, int) and 0 <= seed <= SEED_LIMIT for seed in chosen)
    assert len(chosen) > 1


@pytest.mark.parametrize("given", [7, 0, None])
def test_the_requesters_own_seed_is_left_alone(given: int | None) -> None:
    assert LTX.choose_seed({**PROMPT, "seed": given}, 1) is None


@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_seed_is_chosen_for_several_outputs(count: int) -> None:
    assert LTX.choose_seed(PROMPT, count) is None


@pytest.mark.parametrize(
    ("seed", "low", "high"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 7}, 5, 7),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 8}, 6, 7),
        ({"type": "integer", "minimum": -9, "maximum": 1}, 0, 1),
        ({"type": "integer", "minimum": 2, "maximum": 2}, 2, 2),
        ({"type": ["integer", "null"]}, 0, SEED_LIMIT),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0, SEED_LIMIT),
        ({"type": "number", "maximum": 3}, 0, 3),
        ({"type": "integer", "maximum": 2**64}, 0, SEED_LIMIT),
        ({}, 0, SEED_LIMIT),
        ({"type": "integer", "nullable": True, "maximum": 5}, 0, 5),
        ({"type": "integer", "minimum": 4, "exclusiveMinimum": True, "maximum": 6}, 5, 6),
        ({"minimum": 0.5, "maximum": 2.5}, 1, 2),
        ({"$ref": "#/$defs/seed"}, 3, 5),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/seed"}]}, 3, 5),
        ({"allOf": [{"$ref": "#/$defs/seed"}, {"minimum": 4}]}, 4, 5),
        ({"oneOf": [{"type": "integer", "maximum": 2}, {"type": "string"}]}, 0, 2),
        ({"oneOf": [{"const": "random"}, {"enum": [1, 2]}]}, 1, 2),
        ({"$ref": "#/$defs/loop", "maximum": 1}, 0, 1),
    ],
)
@pytest.mark.usefixtures("any_range_marks")
def test_a_chosen_seed_lies_within_the_range_of_the_schema(seed: dict[str, Any], low: int, high: int) -> None:
    definitions = {"seed": {"type": "integer", "minimum": 3, "maximum": 5}, "loop": {"$ref": "#/properties/seed"}}
    schema = with_properties({"seed": seed}, **{"$defs": definitions})
    assert schema.takes_seed
    chosen = seeds(schema)
    assert all(isinstance(value, int) and low <= value <= high for value in chosen)
    if high - low < 3:
        assert chosen == set(range(low, high + 1))


@pytest.mark.parametrize(
    "seed",
    [
        {"type": "string"},
        {"type": "integer", "maximum": -1},
        {"type": "integer", "minimum": 9, "maximum": 3},
        {"type": "integer", "minimum": 2**40},
        {"type": "integer", "minimum": 1e308},
        {"enum": ["random", "fixed"]},
        {"const": None},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"allOf": [{"type": "integer"}, {"maximum": -1}]},
        {"not": {"type": "integer"}},
        {"$ref": "#/properties/prompt"},
        True,
        False,
    ],
)
def test_no_seed_is_chosen_where_the_schema_has_no_room_for_one(seed: object) -> None:
    schema = with_properties({"seed": seed, "prompt": {"type": "string"}})
    assert not schema.takes_seed
    assert seeds(schema, times=5) == {None}


@pytest.mark.parametrize(("most", "chosen"), [(2**20 - 2, False), (2**20 - 1, True), (1000, False)])
def test_no_seed_is_chosen_out_of_so_few_that_another_request_may_have_the_same(most: int, *, chosen: bool) -> None:
    schema = with_properties({"seed": {"type": "integer", "maximum": most}})
    assert (schema.choose_seed({}, 1) is not None) == chosen


def test_no_seed_is_chosen_for_a_model_without_one() -> None:
    assert seeds(with_properties({"prompt": {"type": "string"}}), times=5) == {None}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/input"},
        {"allOf": [{"$ref": "#/$defs/input"}, {"required": ["prompt"]}]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/$defs/input"},
    ],
)
@pytest.mark.usefixtures("any_range_marks")
def test_a_seed_is_found_where_the_whole_input_is_described_elsewhere(schema: dict[str, Any]) -> None:
    definitions = {"input": {"properties": {"prompt": {}, "seed": {"type": "integer", "maximum": 9}}}}
    chosen = seeds(ModelSchema.compile("m", {**schema, "$defs": definitions}), PROMPT)
    assert chosen <= set(range(10))
    assert len(chosen) > 1


def test_of_several_kinds_of_input_only_those_with_a_seed_get_one() -> None:
    alternatives = [
        {"required": ["prompt"], "properties": {"kind": {"const": "draft"}, "seed": {"type": "integer"}}},
        {"required": ["prompt"], "properties": {"kind": {"const": "final"}}},
    ]
    schema = ModelSchema.compile("m", {"oneOf": alternatives})
    assert None not in seeds(schema, {**PROMPT, "kind": "draft"})
    assert seeds(schema, {**PROMPT, "kind": "final"}) == {None}


def test_a_seed_that_the_rest_of_the_schema_refuses_is_not_added() -> None:
    schema = with_properties({"seed": {"type": "integer"}}, dependentRequired={"seed": ["sampler"]})
    assert seeds(schema, times=5) == {None}
    assert None not in seeds(schema, {"sampler": "euler"}, times=5)


parameters = st.dictionaries(
    st.sampled_from(["prompt", "num_frames", "seed", "frames_per_second", "x"]),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
    | st.lists(st.integers(0, 9), max_size=2),
)


@given(parameters)
def test_an_input_with_the_chosen_seed_passes_whenever_one_was_chosen(values: dict[str, Any]) -> None:
    seed = LTX.choose_seed(values, 1)
    if seed is None:
        assert "seed" in values or LTX.fault({**values, "seed": 1}) is not None
    else:
        assert LTX.fault({**values, "seed": seed}) is None
