"""Whatever a hub calls a schema and a producer an input: judged, or told to be unusable; soon, and by the standard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs here
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.wire.model_schema import BrokenSchemaError, ModelSchema
from service.wire.schema_faults import MAX_DETAILS

SOON_S = 2.0  # what takes for ever takes longer; what is quick may have to wait for a busy machine

# -- anything ---------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["prompt", "seed", "a/b", "~", "", "$ref", "type", "nullable", "properties"])
KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "if", "then"),
        *("enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern"),
        *("$ref", "$id", "$anchor", "$schema", "$defs", "definitions", "$dynamicRef", "$recursiveRef", "format"),
        *("nullable", "additionalProperties", "unevaluatedProperties", "propertyNames", "dependentRequired", "default"),
        *("dependencies", "contains", "minItems", "maxItems", "uniqueItems", "components", "schemas", "x-order"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["object", "integer", "null", "number", "array", "string", "uri", "^a+$", "(", "#", "#/$defs/a"])
    | st.sampled_from(["#/properties/seed", "http://127.0.0.1:1/x", "http://json-schema.org/draft-04/schema#"])
    | st.sampled_from(["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2019-09/schema"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYWORDS | NAMES, inner, max_size=5),
    max_leaves=25,
)
INPUTS = st.dictionaries(NAMES, JSON, max_size=4)


@settings(max_examples=400, deadline=None)
@given(JSON | st.dictionaries(KEYWORDS, JSON, max_size=6), INPUTS)
def test_anything_for_a_schema_judges_or_is_told_to_be_unusable(schema: object, parameters: dict[str, Any]) -> None:
    began = time.monotonic()
    try:
        compiled = ModelSchema.compile("m", schema)
    except BrokenSchemaError:
        return
    fault = compiled.fault(parameters)
    seed = compiled.choose_seed(parameters, 1)
    assert time.monotonic() - began < SOON_S
    assert fault is None or 1 <= len(fault.details) <= MAX_DETAILS
    if seed is not None and fault is None:
        assert compiled.fault({**parameters, "seed": seed}) is None


# -- as the standard has it -------------------------------------------------------------------------------------------

SMALL = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "", "a", "ab", "b"])
VALUES = st.recursive(
    SMALL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


COUNT = st.integers(0, 3)
NAME = st.sampled_from("abc")
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), st.integers(-3, 3)),
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "const": VALUES,
    "enum": st.lists(SMALL, min_size=1, max_size=4, unique_by=repr),
    "multipleOf": st.integers(1, 3),
    "pattern": st.sampled_from(["^a", "b$"]),
    "required": st.lists(NAME, unique=True, max_size=2),
    "uniqueItems": st.booleans(),
    "x-order": COUNT,
    "default": VALUES,
    "$ref": st.just("#/definitions/a"),
}
ONE = ("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else")
LATER = {
    "dependentRequired": st.dictionaries(NAME, st.lists(NAME, unique=True, max_size=2), max_size=2),
    "unevaluatedProperties": st.booleans(),
}


def some_of(keywords: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    pairs = [st.tuples(st.just(keyword), values) for keyword, values in keywords.items()]
    return st.lists(st.one_of(pairs), max_size=4).map(dict)


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    few = st.lists(inner, min_size=1, max_size=2)
    return some_of(
        {
            **SIMPLE,
            **dict.fromkeys(ONE, inner),
            **dict.fromkeys(("anyOf", "oneOf", "allOf"), few),
            "properties": st.dictionaries(NAME, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=2),
        }
    )


SUBSCHEMAS = st.booleans() | some_of(SIMPLE)
SCHEMAS = around(SUBSCHEMAS | around(SUBSCHEMAS))
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
}


def without_loops(value: object) -> object:
    """`$ref` taken out: what `definitions` hold must not lead back to themselves."""
    if isinstance(value, dict):
        return {key: without_loops(item) for key, item in value.items() if key != "$ref"}
    return [without_loops(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(DRAFTS)), SCHEMAS, some_of(LATER), around(SUBSCHEMAS), OBJECTS)
def test_the_verdict_is_that_of_the_reference_implementation(
    draft: str, schema: dict[str, Any], later: dict[str, Any], definition: object, parameters: dict[str, Any]
) -> None:
    if draft.endswith("2020-12/schema"):
        schema = {**schema, **later}
    schema = {**schema, "$schema": draft, "definitions": {"a": without_loops(definition)}}
    reference = DRAFTS[draft](schema)
    assert (ModelSchema.compile("m", schema).fault(parameters) is None) == reference.is_valid(parameters)


# -- what could take for ever -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"^((a|aa)(?=.))+$",
        r"^(a+)+\1$",
        r"^(?:(a)|a|a\1)+$",
        r"^(([a-z])+.)+[A-Z]([a-z])+$(?!x)",
        r"((a*)*)*\2z",
    ],
)
def test_a_pattern_that_backtracks_for_ever_is_given_up_soon(pattern: str) -> None:
    schema = ModelSchema.compile("m", {"properties": {"p": {"pattern": pattern}}})
    began = time.monotonic()
    for length in (30, 1000, 200_000):
        schema.fault({"p": "a" * length + "!"})
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"anyOf": [p, {"type": "null"}]}, lambda p: {"allOf": [p]}])
def test_what_a_pattern_could_not_decide_is_left_to_the_hub_and_other_faults_are_told(
    wrap: Callable[[object], object],
) -> None:
    endless = wrap({"pattern": r"^((a|aa)(?=.))+$"})
    schema = ModelSchema.compile("m", {"properties": {"p": endless, "n": {"type": "integer"}}})
    assert schema.fault({"p": "a" * 40 + "!"}) is None
    fault = schema.fault({"p": "a" * 40 + "!", "n": "x"})
    assert fault is not None
    assert [detail["path"] for detail in fault.details] == ["/input/n"]


def test_a_pattern_too_large_to_compile_makes_the_schema_unusable() -> None:
    with pytest.raises(BrokenSchemaError):
        ModelSchema.compile("m", {"properties": {"p": {"pattern": "(((a{1,99}){1,99}){1,99}){1,99}"}}})


def test_references_that_multiply_make_the_schema_unusable() -> None:
    doubling = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**doubling, "a40": {"type": "object"}}}
    began = time.monotonic()
    with pytest.raises(BrokenSchemaError, match="unfold"):
        ModelSchema.compile("m", schema)
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("key", ["anyOf", "allOf"])
def test_a_schema_that_branches_into_itself_is_soon_done_with_a_deep_input(key: str) -> None:
    again = {"properties": {"next": {"$ref": "#"}}}
    schema = ModelSchema.compile("m", {"properties": {"n": {"type": "integer"}}, key: [again, again]})
    parameters: dict[str, Any] = {"n": "x"}
    for _ in range(150):
        parameters = {"next": parameters}
    began = time.monotonic()
    assert schema.fault(parameters) is not None
    assert time.monotonic() - began < SOON_S


def test_a_hundred_thousand_faults_are_not_all_written_down() -> None:
    schema = ModelSchema.compile(
        "m", {"properties": {"l": {"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}}
    )
    began = time.monotonic()
    fault = schema.fault({"l": [1] * 100_000})
    assert time.monotonic() - began < SOON_S
    assert fault is not None
    assert fault.details[0]["path"] == "/input/l/0"


@pytest.mark.parametrize("depth", [100, 300, 900, 5000])
def test_a_schema_nested_deeply_is_judged_by_up_to_some_depth_and_unusable_beyond(depth: int) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"properties": {"x": schema}}
    if depth <= 100:
        assert ModelSchema.compile("m", schema).fault({"x": {}}) is None
    else:
        with pytest.raises(BrokenSchemaError):
            ModelSchema.compile("m", schema)
