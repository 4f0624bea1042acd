"""The compatibility check: this version against the released one, and every rule against planted changes.

A planted change that breaks somebody comes with a witness where one can be given: a document that the old side writes
(or relied on) and the other refuses. It is shown to a validator, so that the table itself is not taken on trust.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from service.contracts.compatibility import Break, UnknownKeywordError, breaks
from service.contracts.schemas import MessageSchema, Schema, message_schemas

RELEASED = Path(__file__).parents[2] / "contracts" / "released"
OBJECT: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]+$", "minLength": 1, "maxLength": 9},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1},
        "note": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 0, "maxItems": 3},
        "part": {"$ref": "#/$defs/Part"},
        "fault": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
        "version": {"type": "string", "const": "1"},
        "code": {"type": "string", "x-extensible-enum": ["x", "y"]},
        "free": {"type": "object", "propertyNames": {"not": {"enum": ["model"]}}},
        "at": {"type": "string", "format": "date-time"},
    },
    "required": ["id", "version"],
    "$defs": {"Part": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}},
}
CLOSED: Schema = {**OBJECT, "additionalProperties": False}
LEAST = {"id": "a", "version": "1"}
Change = Callable[[Schema], object]


def put(path: str, value: object) -> Change:
    """Sets what a path of keys leads to."""

    def change(schema: Schema) -> None:
        *way, last = path.split("/")
        for key in way:
            schema = schema[key]
        schema[last] = value

    return change


def drop(path: str) -> Change:
    """Removes it."""

    def change(schema: Schema) -> None:
        *way, last = path.split("/")
        for key in way:
            schema = schema[key]
        del schema[last]

    return change


def field(name: str, **keywords: Any) -> Change:
    """Changes some keywords of a field."""
    return lambda schema: schema["properties"][name].update(keywords)


def both(*changes: Change) -> Change:
    return lambda schema: [change(schema) for change in changes]


def found(incoming: bool, change: Change) -> tuple[list[Break], Schema, Schema]:
    old = CLOSED if incoming else OBJECT
    new = copy.deepcopy(old)
    change(new)
    before, after = ({"m": MessageSchema("m", incoming=incoming, schema=schema)} for schema in (old, new))
    return breaks(before, after), old, new


# -- what others send us: what was taken must be taken ----------------------------------------------------------------

BREAKS_A_PRODUCER: list[tuple[str, Change, Any]] = [
    ("a field is required now", put("required", ["id", "version", "note"]), LEAST),
    (
        "a new field is required",
        both(put("properties/new", {"type": "string"}), put("required", ["id", "version", "new"])),
        LEAST,
    ),
    ("a field is gone", drop("properties/note"), {**LEAST, "note": "n"}),
    ("a value is gone", field("kind", enum=["a"]), {**LEAST, "kind": "b"}),
    ("text became a list of values", field("note", enum=["x"]), {**LEAST, "note": "n"}),
    ("a constant changed", field("version", const="2"), LEAST),
    ("a type is gone", field("note", type="string"), {**LEAST, "note": None}),
    ("another type", field("count", type="string", minimum=1), {**LEAST, "count": 1}),
    ("the least is more", field("count", minimum=2), {**LEAST, "count": 1}),
    ("the most is less", field("count", maximum=3), {**LEAST, "count": 4}),
    ("an open bound came", field("count", exclusiveMaximum=4), {**LEAST, "count": 4}),
    ("a pattern changed", field("id", pattern="^[a-c]+$"), {**LEAST, "id": "z"}),
    ("a pattern came", field("note", pattern="^x"), {**LEAST, "note": "n"}),
    ("a format came", field("note", format="uuid"), {**LEAST, "note": "n"}),
    ("shorter", field("id", maxLength=8), {**LEAST, "id": "a" * 9}),
    ("longer", field("id", minLength=2), LEAST),
    ("fewer items", field("tags", maxItems=2), {**LEAST, "tags": ["a"] * 3}),
    ("more items", field("tags", minItems=1), {**LEAST, "tags": []}),
    ("items are narrower", field("tags", items={"type": "string", "maxLength": 1}), {**LEAST, "tags": ["ab"]}),
    ("a name is refused", field("free", propertyNames={"not": {"enum": ["model", "x"]}}), {**LEAST, "free": {"x": 1}}),
    ("names are bounded", field("free", propertyNames={"maxLength": 3}), {**LEAST, "free": {"long": 1}}),
    ("an open object is closed", field("free", additionalProperties=False), {**LEAST, "free": {"x": 1}}),
    ("an open object is typed", field("free", additionalProperties={"type": "string"}), {**LEAST, "free": {"x": 1}}),
    ("an open object knows a field", field("free", properties={"x": {"type": "string"}}), {**LEAST, "free": {"x": 1}}),
    ("fewer properties", field("free", maxProperties=1), {**LEAST, "free": {"x": 1, "y": 2}}),
    ("within a definition", put("$defs/Part/properties/size/maximum", 5), {**LEAST, "part": {"size": 6}}),
    ("a definition requires more", put("$defs/Part/required", ["size", "unit"]), {**LEAST, "part": {"size": 6}}),
    ("a branch is gone", put("properties/fault", {"$ref": "#/$defs/Part"}), {**LEAST, "fault": None}),
    ("something is excluded", field("note", **{"not": {"const": "n"}}), {**LEAST, "note": "n"}),
    ("nothing is taken", put("properties/note", False), {**LEAST, "note": "n"}),
    ("a default changed", field("count", default=2), None),
    ("a default is gone", drop("properties/count/default"), None),
]


@pytest.mark.parametrize(("change", "witness"), [pytest.param(c, w, id=name) for name, c, w in BREAKS_A_PRODUCER])
def test_a_change_that_refuses_what_was_taken_breaks_a_producer(change: Change, witness: object) -> None:
    told, old, new = found(True, change)
    assert told != []
    if witness is not None:
        assert judge(old).is_valid(witness)
        assert not judge(new).is_valid(witness)


FINE_FOR_A_PRODUCER: list[tuple[str, Change]] = [
    ("nothing", both()),
    ("a new optional field", put("properties/new", {"type": "string", "default": "x"})),
    ("no longer required", put("required", ["id"])),
    ("one value more", field("kind", enum=["a", "b", "c"])),
    ("any text", drop("properties/kind/enum")),
    ("one type more", field("count", type=["integer", "null"])),
    ("any number", field("count", type="number")),
    ("wider", field("count", minimum=0, maximum=5)),
    (
        "unbounded",
        both(drop("properties/id/pattern"), drop("properties/id/maxLength"), drop("properties/id/minLength")),
    ),
    ("more items are taken", field("tags", maxItems=9)),
    ("the forbidden name is taken", drop("properties/free/propertyNames")),
    ("anything is taken", drop("additionalProperties")),
    ("a branch more", put("properties/part", {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]})),
    (
        "other words",
        both(put("title", "T"), put("description", "D"), put("examples", []), field("id", description="x")),
    ),
    (
        "a definition under another name",
        both(put("$defs/Piece", OBJECT["$defs"]["Part"]), put("properties/part", {"$ref": "#/$defs/Piece"})),
    ),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in FINE_FOR_A_PRODUCER])
def test_a_change_that_takes_more_breaks_no_producer(change: Change) -> None:
    assert found(True, change)[0] == []


# -- events: what could be relied on must hold ------------------------------------------------------------------------

BREAKS_A_CONSUMER: list[tuple[str, Change, Any]] = [
    ("a field is gone", both(drop("properties/id"), put("required", ["version"])), {"version": "1"}),
    ("an optional field is gone", drop("properties/note"), {**LEAST, "note": 5}),
    ("a field need not be there", put("required", ["version"]), {"version": "1"}),
    ("a constant changed", field("version", const="2"), {"id": "a", "version": "2"}),
    ("a constant is any text", drop("properties/version/const"), {"id": "a", "version": "2"}),
    ("a value more in a closed list", field("kind", enum=["a", "b", "c"]), {**LEAST, "kind": "c"}),
    ("a list became text", drop("properties/kind/enum"), {**LEAST, "kind": "c"}),
    ("it may be null", field("count", type=["integer", "null"]), {**LEAST, "count": None}),
    ("it may be a fraction", field("count", type="number"), {**LEAST, "count": 1.5}),
    ("another type", field("at", type="integer"), {**LEAST, "at": 5}),
    ("no type", drop("properties/note/type"), {**LEAST, "note": 5}),
    ("lower", field("count", minimum=0), {**LEAST, "count": 0}),
    ("higher", field("count", maximum=5), {**LEAST, "count": 5}),
    ("longer", field("id", maxLength=10), {**LEAST, "id": "a" * 10}),
    ("no pattern", drop("properties/id/pattern"), {**LEAST, "id": "A"}),
    ("no format", drop("properties/at/format"), {**LEAST, "at": "now"}),
    ("more items", field("tags", maxItems=4), {**LEAST, "tags": ["a"] * 4}),
    ("wider items", field("tags", items={"type": ["string", "null"]}), {**LEAST, "tags": [None]}),
    ("items of any kind", drop("properties/tags/items"), {**LEAST, "tags": [1]}),
    ("a definition lost a field", put("$defs/Part", {"type": "object"}), {**LEAST, "part": {}}),
    (
        "a definition may be null",
        put("properties/part", {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}),
        {**LEAST, "part": None},
    ),
    ("names of any kind", drop("properties/free/propertyNames"), {**LEAST, "free": {"model": 1}}),
]


@pytest.mark.parametrize(("change", "witness"), [pytest.param(c, w, id=name) for name, c, w in BREAKS_A_CONSUMER])
def test_a_change_of_what_could_be_relied_on_breaks_a_consumer(change: Change, witness: object) -> None:
    told, old, new = found(False, change)
    assert told != []
    assert judge(new).is_valid(witness)
    assert not judge(old).is_valid(witness)


FINE_FOR_A_CONSUMER: list[tuple[str, Change]] = [
    ("nothing", both()),
    ("a new optional field", put("properties/new", {"type": "string"})),
    (
        "a new required field",
        both(put("properties/new", {"type": "string"}), put("required", ["id", "version", "new"])),
    ),
    ("always there", put("required", ["id", "version", "note"])),
    ("one value less", field("kind", enum=["a"])),
    ("a value more in an open list", put("properties/code/x-extensible-enum", ["x", "y", "z"])),
    ("never null", field("note", type="string")),
    ("narrower", field("count", minimum=2, maximum=3)),
    ("a closed object", put("additionalProperties", False)),
    ("a definition with more fields", put("$defs/Part/properties/unit", {"type": "string"})),
    ("never a fault", put("properties/fault", {"type": "null"})),
    ("another default", field("count", default=3)),
    ("other words", both(put("title", "T"), put("description", "D"), put("examples", []))),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in FINE_FOR_A_CONSUMER])
def test_a_change_that_keeps_every_promise_breaks_no_consumer(change: Change) -> None:
    assert found(False, change)[0] == []


def judge(schema: Schema) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, offline=True, validate_formats=True)


# -- whole sets, and what the check does not know ---------------------------------------------------------------------


def test_a_message_that_is_gone_or_turned_round_is_a_break_and_a_new_one_is_none() -> None:
    one = {"m": MessageSchema("m", incoming=True, schema=CLOSED)}
    assert breaks(one, {}) == [Break("m", "", "the message is gone")]
    assert len(breaks(one, {"m": MessageSchema("m", incoming=False, schema=CLOSED)})) == 1
    assert breaks({}, one) == []


def test_a_break_names_the_message_the_place_and_the_reason() -> None:
    told, _, _ = found(True, put("$defs/Part/properties/size/maximum", 5))
    assert Break("m", "/part/size", "may be beyond the maximum 5") in told


@pytest.mark.parametrize(
    "change",
    [
        field("id", contentEncoding="base64"),
        field("tags", uniqueItems=True),
        put("oneOf", [{}]),
        put("if", {}),
        put("patternProperties", {}),
        put("$defs/Unused", {"multipleOf": 2}),
        put("properties/part", {"$ref": "#/$defs/Part", "type": "object"}),
        put("properties/part", {"$ref": "https://example.com/part.json"}),
        put("properties/part", {"$ref": "#/$defs/Nothing"}),
        put("properties/note", {"anyOf": [{"type": "string"}], "minLength": 1}),
        field("note", **{"not": True}),
        put("properties/note", "text"),
    ],
)
@pytest.mark.parametrize("incoming", [True, False])
def test_a_keyword_without_a_rule_is_refused(incoming: bool, change: Change) -> None:
    with pytest.raises(UnknownKeywordError):
        found(incoming, change)


def test_a_keyword_without_a_rule_is_refused_in_a_message_that_is_new() -> None:
    with pytest.raises(UnknownKeywordError):
        breaks({}, {"m": MessageSchema("m", incoming=True, schema={"allOf": []})})


def test_a_schema_that_holds_itself_is_compared_to_its_end() -> None:
    tree: Schema = {
        "$ref": "#/$defs/Tree",
        "$defs": {
            "Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "size": {"type": "integer"}}}
        },
    }
    wider = copy.deepcopy(tree)
    wider["$defs"]["Tree"]["properties"]["size"] = {"type": "number"}
    old, new = ({"m": MessageSchema("m", incoming=False, schema=schema)} for schema in (tree, wider))
    assert breaks(old, old) == []
    assert [found.path for found in breaks(old, new)] == ["/size"]


# -- whatever the schemas ---------------------------------------------------------------------------------------------

LEAVES = [None, True, 0, 1, 2, 5, 1.5, "", "a", "ab", "abc", "A", "2030-01-31T12:00:00Z"]
DOCUMENTS: list[Any] = [
    *LEAVES,
    *([], ["a"], [1, "a"], ["a", "a", "a"], [None]),
    *(
        {},
        *({name: leaf} for name in "xyz" for leaf in LEAVES),
        {"x": {"x": 1}},
        {"x": []},
        {"x": ["a"]},
        {"y": {"y": "a"}},
    ),
    *({"x": "a", "y": 1}, {"x": 1, "y": None}, {"x": "a", "y": "b", "z": 5}),
]


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries({}, optional=keywords)


small = st.integers(0, 3)
kinds = st.sampled_from(["string", "integer", "number", "object", "array", "null", "boolean"])
plain = some(
    type=kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
    minimum=small,
    maximum=small,
    exclusiveMinimum=small,
    minLength=small,
    maxLength=small,
    pattern=st.sampled_from(["^a", "b$"]),
    format=st.just("date-time"),
    minItems=small,
    maxItems=small,
)
listed = some(enum=st.lists(st.sampled_from(LEAVES), max_size=4)) | some(const=st.sampled_from(LEAVES))
parts = st.just({"$ref": "#/$defs/D"}) | listed | plain


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    fields = st.dictionaries(st.sampled_from("xyz"), inner | st.booleans(), max_size=3)
    return (
        some(
            type=kinds | st.just("object"),
            properties=fields,
            required=st.lists(st.sampled_from("xyz"), max_size=2, unique=True),
            additionalProperties=st.booleans() | inner,
            propertyNames=some(**{"not": listed}),
            minProperties=small,
        )
        | some(items=inner | st.booleans(), maxItems=small)
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)})
        | some(**{"not": inner, "type": kinds})
    )


whole = st.builds(
    lambda schema, d: {**schema, "$defs": {"D": d}}, st.recursive(parts, larger, max_leaves=5), plain | listed
)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(old=whole, new=whole, incoming=st.booleans(), same=st.booleans())
def test_where_no_break_is_told_the_reader_takes_whatever_the_writer_writes(
    old: Schema, new: Schema, incoming: bool, same: bool
) -> None:
    new = old if same else new
    before, after = ({"m": MessageSchema("m", incoming=incoming, schema=schema)} for schema in (old, new))
    try:
        told = breaks(before, after)
    except UnknownKeywordError:
        reject()
    if same and "not" not in json.dumps(old):
        assert told == []
    writer, reader = (judge(schema) for schema in ((old, new) if incoming else (new, old)))
    if not told:
        refused = [document for document in DOCUMENTS if writer.is_valid(document) and not reader.is_valid(document)]
        assert refused == []


# -- this version against those that were released --------------------------------------------------------------------


def released(version: str) -> dict[str, MessageSchema]:
    """The schemas as they were; which of them came in did not change."""
    told = {
        file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in (RELEASED / version).iterdir()
    }
    incoming = {name for name, message in message_schemas().items() if message.incoming}
    return {name: MessageSchema(name, name in incoming, schema) for name, schema in told.items()}


@pytest.mark.parametrize("version", sorted(path.name for path in RELEASED.iterdir()))
def test_nobody_who_was_built_against_a_released_version_is_broken(version: str) -> None:
    assert len(released(version)) >= 12
    assert breaks(released(version), message_schemas()) == []


def test_a_change_of_the_real_schemas_would_be_seen() -> None:
    present = message_schemas()
    wrong = copy.deepcopy(present)
    wrong["generation.request"].schema["properties"]["num_generations"]["maximum"] = 3
    wrong["generation.succeeded"].schema["$defs"]["Output"]["properties"]["url"]["type"] = ["string", "null", "object"]
    wrong["generation.failed"].schema["$defs"]["FailedData"]["required"].remove("error")
    told = {(found.message, found.path) for found in breaks(released("v1"), wrong)}
    assert told == {
        ("generation.request", "/num_generations"),
        ("generation.request.cloudevents", "/data/num_generations"),
        ("generation.succeeded", "/data/outputs[]/url"),
        ("generation.failed", "/data/error"),
    }
    del wrong["generation.output"]
    assert Break("generation.output", "", "the message is gone") in breaks(released("v1"), wrong)
