"""Every model of the sandbox, each with a schema of another shape: what passes, and what is pointed at."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.sandbox.catalog import Catalog
from service.wire.model_schema import BrokenSchemaError, ModelSchema
from tests.support.models import TRIALS, Input, Trial
from tests.unit.builders import paths

CATALOG = Catalog()


def compiled(model: str) -> ModelSchema:
    """As the catalogue of models has it: what cannot be used judges nothing."""
    described = CATALOG.get(model)
    assert described is not None
    try:
        return ModelSchema.compile(model, described.object["request_schema"])
    except BrokenSchemaError:
        return ModelSchema.compile(model, None)


SCHEMAS = {trial.model: compiled(trial.model) for trial in TRIALS}
EITHER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
GOOD = [(trial.model, given) for trial in TRIALS for given in (trial.small, *trial.good)]
BAD = [(trial.model, given, pointers) for trial in TRIALS for given, pointers in trial.bad]


def strings_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings_of(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_of(item)]
    return [value] if isinstance(value, str) else []


def test_every_image_and_video_model_of_the_sandbox_is_tried() -> None:
    makers = {model["id"] for model in CATALOG.search() if model["capabilities"]["output"] != ["text"]}
    assert makers == set(SCHEMAS)
    assert len(makers) >= 14


@pytest.mark.parametrize(("model", "given"), GOOD)
def test_what_a_model_takes_passes_and_the_hub_agrees(model: str, given: Input) -> None:
    assert SCHEMAS[model].fault(given) is None
    described = CATALOG.get(model)
    assert described is not None
    described.judge(given)


@pytest.mark.parametrize(("model", "given", "pointers"), BAD)
def test_what_a_model_does_not_take_is_pointed_at_exactly(model: str, given: Input, pointers: list[str]) -> None:
    fault = SCHEMAS[model].fault(given)
    assert fault is not None
    assert sorted(map(str, set(paths(fault)))) == pointers


@pytest.mark.parametrize(("model", "given", "pointers"), BAD)
def test_what_is_told_is_a_sentence_and_never_the_value(model: str, given: Input, pointers: list[str]) -> None:
    fault = SCHEMAS[model].fault(given)
    assert fault is not None
    for detail in fault.details:
        message = str(detail["message"])
        assert re.match(r"[A-Z]", message), message
        assert "schemas listed" not in message
        assert not [text for text in strings_of(given) if len(text) > 3 and text in message]


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_a_seed_is_chosen_exactly_where_the_model_takes_an_integer_and_in_its_range(trial: Trial) -> None:
    schema = SCHEMAS[trial.model]
    chosen = {schema.choose_seed(trial.small, 1) for _ in range(50)}
    if trial.seed is None:
        assert chosen == {None}
    else:
        low, high = trial.seed
        assert all(isinstance(seed, int) and low <= seed <= high for seed in chosen)
        assert len(chosen) > 1


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (EITHER, "s", "fits none of the alternatives: must be an integer; or must be null."),
        ({"anyOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]}, 10, "is greater than the maximum of 9"),
        ({"type": ["integer", "null"]}, "s", "must be an integer or null."),
        ({"enum": [5, "auto", None]}, "s", 'must be 5, "auto" or null.'),
        ({"enum": []}, "s", "must be nothing at all."),
        ({"const": "KSampler"}, "s", 'must be "KSampler".'),
        ({"oneOf": [{"enum": ["a", "b"]}, {"type": "object"}]}, "s", 'must be "a" or "b"; or must be an object.'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 3, "fits more than one of the alternatives"),
        ({"oneOf": [{"minimum": 3}, {"multipleOf": 2}]}, 1, "is less than the minimum of 3; or is not a multiple of 2"),
        ({"not": {"enum": ["s"]}}, "s", "is one of those that are excluded here."),
        ({"anyOf": [EITHER, {"const": "auto"}]}, "s", 'must be an integer; or must be null; or must be "auto".'),
        ({"format": "uri"}, "s", "must be an absolute URL"),
        ({"maxLength": 3}, "secret", "is longer than 3 characters"),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "a: This parameter is required; or b: "),
    ],
)
def test_a_fault_says_what_would_be_right(kind: dict[str, Any], given: object, message: str) -> None:
    fault = ModelSchema.compile("m", {"properties": {"p": kind}}).fault({"p": given})
    assert fault is not None
    [detail] = fault.details
    assert detail["path"] == "/input/p"
    assert message in str(detail["message"])


@pytest.mark.parametrize(
    "value",
    [
        *("https://example.com/a.png", "http://[::1]:8080/a", "HTTPS://example.com", "data:image/png;base64,iVBO"),
        *("s3://bucket/key", "gs://bucket/key", "oxen://repo/file", "urn:uuid:1", "https://example.com/ä b.png?x={y}"),
    ],
)
def test_a_uri_is_anything_absolute(value: str) -> None:
    assert ModelSchema.compile("m", {"properties": {"u": {"format": "uri"}}}).fault({"u": value}) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a.png",
        "/a.png",
        "//example.com/a.png",
        "example.com/a.png",
        "https://",
        "https:///a.png",
        "C:\\a.png",
        "http:a",
    ],
)
def test_a_uri_without_scheme_or_host_is_refused_before_it_costs(value: str) -> None:
    assert ModelSchema.compile("m", {"properties": {"u": {"format": "uri"}}}).fault({"u": value}) is not None


@pytest.mark.parametrize(
    "format_", ["date-time", "email", "uuid", "uri-reference", "iri", "regex", "hostname", "ipv4", "color", "binary"]
)
@pytest.mark.parametrize("draft", ["2020-12", "2019-09"])
def test_no_other_format_is_judged(format_: str, draft: str) -> None:
    schema = {"$schema": f"https://json-schema.org/draft/{draft}/schema", "properties": {"u": {"format": format_}}}
    assert ModelSchema.compile("m", schema).fault({"u": "?? ["}) is None
