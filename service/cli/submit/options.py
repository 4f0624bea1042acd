"""A model's parameters as options of the command line, from its JSON Schema. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from service.domain.errors import ConfigurationError
from service.wire.dialects import in_plain_words, resolve

MOST_SHOWN = 40  # characters of a default
DEEPEST = 6  # references behind references
JSON_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


class Option(Struct, frozen=True):
    """One parameter: `kinds` are its JSON types, empty where the schema does not say."""

    name: str
    kinds: frozenset[str]
    schema: Mapping[str, Any]
    required: bool

    @property
    def flag(self) -> str:
        """As it is typed: `--num-frames` for `num_frames`."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.kinds == {"boolean"}


def options_of(schema: Mapping[str, Any]) -> list[Option]:
    """Every parameter, in the hub's order (`x-order`), else in the schema's. Total: what is no schema tells nothing."""
    root = in_plain_words(schema)
    properties: dict[str, Any] = {}
    required: set[str] = set()
    for part in _parts(root, root, DEEPEST):
        for name, found in _mapping(part.get("properties")).items():
            properties.setdefault(name, found)
        required |= {name for name in _list(part.get("required")) if isinstance(name, str)}
    found_options = [_option(root, name, part, required=name in required) for name, part in properties.items()]
    return sorted(found_options, key=lambda option: _order(option.schema))


def _option(root: Mapping[str, Any], name: str, schema: object, *, required: bool) -> Option:
    """What is said of it in its place counts before what a reference says."""
    merged: dict[str, Any] = {}
    for part in _parts(root, schema, DEEPEST):
        for key, value in part.items():
            merged.setdefault(key, value)
    return Option(name, _kinds(root, merged, DEEPEST), merged, required)


def _parts(root: Mapping[str, Any], schema: object, left: int) -> Iterator[Mapping[str, Any]]:
    """A schema and all that hold besides it: what it refers to, and `allOf`."""
    if isinstance(schema, Mapping) and left:
        yield schema
        yield from _parts(root, resolve(root, schema.get("$ref")), left - 1)
        for part in _list(schema.get("allOf")):
            yield from _parts(root, part, left - 1)


def _kinds(root: Mapping[str, Any], schema: Mapping[str, Any], left: int) -> frozenset[str]:
    told = schema.get("type")
    kinds = {kind for kind in (told if isinstance(told, list) else [told]) if isinstance(kind, str)}
    if not kinds:
        values = [*_list(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]
        kinds = {JSON_TYPES[type(value)] for value in values}
    for word in ("anyOf", "oneOf"):
        for alternative in _list(schema.get(word)):
            for part in _parts(root, alternative, left - 1):
                kinds |= _kinds(root, part, left - 1)
    return frozenset(kinds)


def _order(schema: Mapping[str, Any]) -> float:
    order = schema.get("x-order")
    return order if isinstance(order, int | float) else float("inf")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def read_options(tokens: Sequence[str], schema: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The parameters that `--name value`, `--name=value`, `--switch` and `--no-switch` give. ConfigurationError."""
    options = {option.flag: option for option in options_of(schema)}
    values: dict[str, Any] = {}
    rest = iter(tokens)
    for token in rest:
        typed, equals, text = token.partition("=")
        flag = typed.replace("_", "-")
        option, negated = options.get(flag), options.get("--" + flag.removeprefix("--no-"))
        if option is None and flag.startswith("--no-") and negated is not None and negated.is_switch and not equals:
            values[negated.name] = False
        elif option is None:
            raise ConfigurationError(_unknown(token, options, model))
        elif option.is_switch and not equals:
            values[option.name] = True
        else:
            given = text if equals else next(rest, None)
            if given is None:
                raise ConfigurationError(f"{option.flag} takes a value: {kind_of(option)}.")
            values[option.name] = convert(given, option)
    return values


def _unknown(token: str, options: Mapping[str, Option], model: str) -> str:
    if not token.startswith("-"):
        return f"{token!r} is no option; a prompt is given as --prompt, and what has blanks in quotes."
    flag = token.partition("=")[0].replace("_", "-")
    close = difflib.get_close_matches(flag, options, 2, 0.6)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    known = ", ".join(option.flag for option in options.values()) or "nothing that is known here"
    return f"{token} is no option, and no parameter of {model}.{meant} It takes {known}; see `drover submit --options`."


def convert(text: str, option: Option) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value that was typed, by the types that the schema allows: text stays text where text is wanted."""
    try:
        value: object = json.loads(text)
    except ValueError:
        value = text
    kind = JSON_TYPES[type(value)]
    allowed = option.kinds
    if not allowed:
        return value
    if kind != "string" and (kind in allowed or (kind == "integer" and "number" in allowed)):
        return value
    if kind == "number" and "integer" in allowed and float(str(value)).is_integer():
        return int(float(str(value)))
    if "string" in allowed:
        return text
    raise ConfigurationError(f"{option.flag} takes {kind_of(option)}, not {text!r}.")


def kind_of(option: Option) -> str:
    """What values it takes, in words."""
    schema = option.schema
    if _list(schema.get("enum")):
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    words = sorted(option.kinds) or ["anything"]
    told = " or ".join(f"{word} as JSON" if word in ("array", "object") else word for word in words)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{told} from {low} to {high}"
    if low is not None:
        return f"{told} of at least {low}"
    return told if high is None else f"{told} of at most {high}"


def describe(schema: Mapping[str, Any], own: frozenset[str]) -> Iterator[tuple[str, str, str, str]]:
    """(option, values, default, meaning) of each parameter; those whose name is taken by an `own` option as --param."""
    for option in options_of(schema):
        flag = f"--param {option.name}=..." if option.flag in own else option.flag
        if option.is_switch and option.flag not in own:
            flag += f"/--no-{option.name.replace('_', '-')}"
        default = "required" if option.required else ""
        if "default" in option.schema:
            default = json.dumps(option.schema["default"], ensure_ascii=False).strip('"')
            default = default if len(default) <= MOST_SHOWN else f"{default[: MOST_SHOWN - 1]}…"
        yield flag, kind_of(option), default, str(option.schema.get("description", ""))
