"""JSON as drover reads it: exact or refused. orjson would read 2**70 as a float, so pydantic's parser reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import orjson
from jsonschema_rs import canonical
from pydantic_core import from_json

INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def loads(body: bytes) -> object:
    """Parses RFC 8259 JSON; ValueError on anything else (NaN, a lone surrogate, nesting over 200, trailing text)."""
    value: object = from_json(body, allow_inf_nan=False)
    return value


def dumps(value: object) -> bytes:
    """Compact JSON; a time, which must be in UTC, is written with a Z."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def canonical_bytes(value: object) -> bytes:
    """One spelling for equal documents: sorted keys, 24.0 as 24."""
    return canonical.json.to_string(value).encode()


def pointer(path: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901) from path segments."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def unfit(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], str]]:
    """Yields (path, what is wrong) for values that JSON allows and that could not be kept or passed on exactly."""
    if isinstance(value, dict):
        for key, item in value.items():
            if "\x00" in key:
                yield path, "has a key with a NUL character, which cannot be stored"
            yield from unfit(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unfit(item, (*path, index))
    elif (fault := _unfit_leaf(value)) is not None:
        yield path, fault


def _unfit_leaf(value: object) -> str | None:
    match value:
        case str():
            return "contains a NUL character, which cannot be stored" if "\x00" in value else None
        case int() if not INT64_MIN <= value <= UINT64_MAX:
            return "is an integer that does not fit in 64 bits"
        case float() if not math.isfinite(value):
            return "is a number too large for a double"
    return None


def loggable(path: str) -> str:
    """Where a fault is, without what a person may have written there: of `metadata` no key, of `input` a parameter's
    name at the most, and neither that nor an unknown field's unless it looks like a name."""
    if not path.startswith("/"):  # `property reply_to`, or nothing
        return path
    top, *below = path[1:].split("/")
    kept = [top, *below[:1]] if top == "input" else [top]
    return "/" + "/".join(part if NAME.fullmatch(part) else "*" for part in kept)
