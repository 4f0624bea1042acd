"""What is typed for `drover submit` becomes what the model's schema wants, or one sentence that says why not."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli import run
from service.cli.submit.models import KnownModel
from service.cli.submit.options import describe, options_of, read_options
from service.cli.submit.requests import Common, check, read_lines
from service.domain.errors import ConfigurationError
from service.sandbox.schemas import LTX_SCHEMA, STILL_SCHEMA
from service.settings import FILES, variables
from service.wire.builtin_models import LTX_2_3_QUALITY_TEXT_TO_VIDEO

COMMON = Common({"model": "m", "num_generations": 1}, {})


def read(*tokens: str, schema: dict[str, Any] = LTX_SCHEMA) -> dict[str, Any]:
    """What these options say."""
    return read_options(tokens, schema, "the-model")


def refused(*tokens: str, schema: dict[str, Any] = LTX_SCHEMA) -> str:
    """Why these options are not taken."""
    with pytest.raises(ConfigurationError) as caught:
        read(*tokens, schema=schema)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- options ----------------------------------------------------------------------------------------------------------


def test_each_parameter_has_the_type_of_the_schema() -> None:
    assert read("--num-frames", "49", "--resolution", "square_hd", "--frames-per-second=12.5", "--seed", "-3") == {
        "num_frames": 49,
        "resolution": "square_hd",
        "frames_per_second": 12.5,
        "seed": -3,
    }
    assert read("--num_frames", "49.0") == {"num_frames": 49}
    assert isinstance(read("--num-frames", "49.0")["num_frames"], int)


def test_text_stays_text_although_it_looks_like_something_else() -> None:
    assert read("--negative-prompt", "12", "--resolution", "true") == {"negative_prompt": "12", "resolution": "true"}
    assert read("--negative-prompt=") == {"negative_prompt": ""}
    assert read("--negative-prompt", "--seed") == {"negative_prompt": "--seed"}


def test_switches_take_no_value_and_can_be_turned_off() -> None:
    assert read("--generate-audio", "--seed", "1") == {"generate_audio": True, "seed": 1}
    assert read("--no-generate-audio") == {"generate_audio": False}
    assert read("--generate-audio=false") == {"generate_audio": False}


def test_arrays_objects_and_unions_are_read_as_json_where_they_are_json() -> None:
    assert read("--reference-images", '["a", "b"]', schema=STILL_SCHEMA) == {"reference_images": ["a", "b"]}
    assert read("--image-size", "square", schema=STILL_SCHEMA) == {"image_size": "square"}
    assert read("--image-size", '{"width": 64, "height": 64}', schema=STILL_SCHEMA) == {
        "image_size": {"width": 64, "height": 64}
    }
    assert read("--x", "null", schema={"properties": {"x": {"type": ["integer", "null"]}}}) == {"x": None}
    assert read("--x", "[1]", schema={"properties": {"x": {}}}) == {"x": [1]}


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["--num-frames", "many"], "--num-frames takes integer from 9 to 481, not 'many'"),
        (["--num-frames", "9.5"], "not '9.5'"),
        (["--num-frames"], "--num-frames takes a value"),
        (["--num-frame", "9"], "Did you mean --num-frames?"),
        (["--no-seed"], "--no-seed is no option"),
        (["surplus"], "'surplus' is no option"),
        (["-x"], "-x is no option"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_what_would(tokens: list[str], says: str) -> None:
    assert says in refused(*tokens)


def test_an_unknown_option_names_all_that_the_model_takes() -> None:
    told = refused("--frobnicate", "1")
    assert all(option.flag in told for option in options_of(LTX_SCHEMA))
    assert "the-model" in told


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_any_text_is_taken_for_a_prompt_as_it_is(text: str) -> None:
    assert read("--prompt", text) == {"prompt": text}


def test_the_list_has_every_parameter_with_its_range_default_and_meaning() -> None:
    rows = {row[0]: row[1:] for row in describe(LTX_2_3_QUALITY_TEXT_TO_VIDEO, frozenset({"--seed"}))}
    assert rows["--num-frames"] == ("integer from 9 to 481", "121", "The number of frames to generate.")
    assert rows["--generate-audio/--no-generate-audio"][0] == "boolean"
    assert rows["--video-quality"][0] == "one of low, medium, high, maximum"
    assert rows["--prompt"][1] == "required"
    assert rows["--negative-prompt"][1].endswith("…")
    assert "--param seed=..." in rows  # its name is one of our own options


def test_parameters_are_listed_as_the_hub_orders_them() -> None:
    schema = {"properties": {"a": {"x-order": 2}, "b": {"x-order": 1}, "c": {}}}
    assert [option.name for option in options_of(schema)] == ["b", "a", "c"]
    assert options_of({}) == []


def test_references_and_allof_are_followed() -> None:
    schema: dict[str, Any] = {
        "$defs": {
            "size": {"anyOf": [{"$ref": "#/$defs/preset"}, {"type": "object"}], "description": "The size."},
            "preset": {"enum": ["small", "large"]},
            "more": {"properties": {"steps": {"type": "integer"}}, "required": ["steps"]},
            "loop": {"$ref": "#/$defs/loop"},
        },
        "properties": {"size": {"$ref": "#/$defs/size"}, "round": {"$ref": "#/$defs/loop"}},
        "allOf": [{"$ref": "#/$defs/more"}],
    }
    options = {option.name: option for option in options_of(schema)}
    assert options["size"].kinds == {"string", "object"}
    assert options["steps"].kinds == {"integer"}
    assert options["steps"].required
    assert options["round"].kinds == frozenset()
    assert read("--size", "small", "--steps", "3", schema=schema) == {"size": "small", "steps": 3}
    assert [row[3] for row in describe(schema, frozenset())] == ["The size.", "", ""]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "enum", "properties", "required", "anyOf", "allOf", "$ref", "default", "x-order", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(ANY_JSON, st.text(max_size=4))
def test_whatever_the_hub_calls_a_schema_is_read(schema: object, typed: str) -> None:
    document: dict[str, Any] = schema if isinstance(schema, dict) else {"properties": {"a": schema}}
    assert len(list(describe(document, frozenset()))) == len(options_of(document))
    with suppress(ConfigurationError):
        read(f"--a={typed}", schema=document)


# -- JSON Lines -------------------------------------------------------------------------------------------------------


def lines(tmp_path: Path, *documents: object, common: Common = COMMON) -> list[dict[str, Any]]:
    """The requests of a file with these lines."""
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in documents))
    return list(read_lines(file, common).values())


def test_a_line_is_a_whole_request_or_its_parameters_alone(tmp_path: Path) -> None:
    whole = {"request_id": "r-1", "model": "other", "input": {"prompt": "a"}, "priority": 9}
    first, second = lines(tmp_path, whole, "", {"prompt": "b"}, common=Common(COMMON.fields, {"seed": 1}))
    assert first == {**whole, "num_generations": 1, "input": {"prompt": "a", "seed": 1}}
    assert (second["model"], second["input"]) == ("m", {"prompt": "b", "seed": 1})


def test_the_same_file_has_the_same_ids_and_the_same_line_twice_has_two(tmp_path: Path) -> None:
    documents = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b", "seed": 1}]
    ids = [body["request_id"] for body in lines(tmp_path, *documents)]
    again = [body["request_id"] for body in lines(tmp_path, "", *documents)]
    assert ids == again
    assert len(set(ids)) == 3
    spelled = '{"seed": 1.0,   "prompt": "b"}'  # the same content in other words
    assert lines(tmp_path, spelled)[0]["request_id"] == ids[2]
    other = [body["request_id"] for body in lines(tmp_path, *documents, common=Common(COMMON.fields, {}, "tuesday"))]
    assert not set(other) & set(ids)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "a"}\n{', "line 2: it is not JSON"),
        ("[1]", "line 1: it must be a JSON object"),
        ('{"request_id": "a b", "input": {}}', "line 1: request_id must be"),
        (
            '{"request_id": "x", "input": {}}\n{"request_id": "x", "input": {"a": 1}}',
            "line 2: it has the request_id of",
        ),
        ("\n", "there is no request in it"),
    ],
)
def test_a_line_that_is_none_is_named_and_nothing_is_sent(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        lines(tmp_path, text)
    assert says in str(caught.value)


def test_all_lines_are_judged_before_one_is_sent(tmp_path: Path) -> None:
    known = KnownModel("m", LTX_SCHEMA, "here")
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": "a", "num_frames": frames}) for frames in (9, 1, 2, 3, 4)))
    with pytest.raises(ConfigurationError) as caught:
        check(read_lines(file, COMMON), lambda _: known)
    told = str(caught.value)
    assert "line 2: invalid_input: /input/num_frames: The value is less than the minimum of 9" in told
    assert told.endswith("(and 1 more). Nothing was sent.")
    whole = read_lines_of(tmp_path, '{"input": {"prompt": "a"}, "priority": 10, "surplus": 1}')
    with pytest.raises(ConfigurationError, match="/priority"):
        check(whole, lambda _: known)
    check(read_lines_of(tmp_path, '{"anything": 1}'), lambda _: KnownModel("m", None, "nobody"))


def read_lines_of(tmp_path: Path, text: str) -> dict[str, dict[str, Any]]:
    """The requests of this text."""
    (tmp_path / "text.jsonl").write_text(text)
    return read_lines(tmp_path / "text.jsonl", COMMON)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def _without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*variables(), *FILES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "x", "--num-frames", "1"], "The value is less than the minimum of 9. Nothing was sent"),
        (["--num-frames", "9"], "/input/prompt"),
        (["--prompt", "x", "--num-generations", "5"], "/num_generations"),
        (["--prompt", "x", "--priority", "10"], "/priority"),
        (["--from-file", "x", "--request-id", "r"], "--request-id is for one request"),
        (["--from-file", "/no/such/file"], "--from-file cannot be read"),
        (["--prompt", "x", "--in-flight", "0"], "--in-flight must be 1 to"),
        (["--model", "unheard-of", "--num-frames", "9"], "are not known here (without OXEN_API_KEY"),
        (["--model", "unheard-of", "--options"], "are not known here"),
    ],
)
@pytest.mark.usefixtures("_without_settings")
def test_what_is_wrong_is_exit_code_2_before_anything_is_connected(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", *arguments]) == 2
    printed = capsys.readouterr()
    assert (says in printed.err, printed.err.count("\n"), printed.out) == (True, 1, "")


@pytest.mark.parametrize("arguments", [["--options"], ["--help"], ["--model", "ltx-2-3-quality-text-to-video", "-h"]])
@pytest.mark.usefixtures("_without_settings")
def test_a_models_parameters_are_listed_with_help_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", *arguments]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("--num-frames", "integer from 9 to 481", "121", "built in"))
