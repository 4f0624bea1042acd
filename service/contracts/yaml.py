"""JSON values as YAML 1.2 for people to read; the same text every time.

The contract's documents need mappings, lists and scalars, no more. Writing those takes the few lines below, and the
service no package. A test reads what is written here with PyYAML, and finds the same values.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping

WIDTH = 100
PLAIN = re.compile(r"[A-Za-z_$/][A-Za-z0-9_$./+,;()'-]*(?: [A-Za-z0-9_$./+,;()'-]+)*")
WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def dump(value: object) -> str:
    """The document. ValueError for a number that JSON has not, TypeError for what is no JSON value."""
    return "\n".join(_block(value)) + "\n"


def _block(value: object) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key, item in value.items() for line in _entry(f"{_text(str(key))}:", item)]
    if isinstance(value, list | tuple) and value:
        return [line for item in value for line in _item(item)]
    return [_scalar(value)]


def _entry(head: str, item: object) -> list[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        return [head, *_indented(_block(item))]
    return _beside(head, item)


def _item(item: object) -> list[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        first, *rest = _block(item)
        return [f"- {first}", *_indented(rest)]
    return _beside("-", item)


def _beside(head: str, item: object) -> list[str]:
    """A scalar after its key or dash; prose that is too long for a line is folded."""
    if isinstance(item, str) and len(item) > WIDTH and _foldable(item):
        return [f"{head} >-", *_indented(_folded(item))]
    return [f"{head} {_scalar(item)}"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _foldable(text: str) -> bool:
    """Whether a reader puts it together again as it was: single spaces inside of lines, and no line but those."""
    paragraphs = text.split("\n")
    plain = all(part.isprintable() and "  " not in part and part == part.strip() for part in paragraphs)
    return plain and bool(paragraphs[0]) and bool(paragraphs[-1])


def _folded(text: str) -> list[str]:
    """A line break that is meant is an empty line."""
    first, *others = text.split("\n")
    return [*_wrapped(first), *(line for part in others for line in ("", *_wrapped(part)))]


def _wrapped(part: str) -> list[str]:
    return textwrap.wrap(part, WIDTH, break_long_words=False, break_on_hyphens=False)


def _scalar(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
    raise TypeError(f"A {type(value).__name__} is no JSON value.")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError("JSON has no infinities and no NaN.")
    mantissa, exponent, power = repr(value).partition("e")
    whole = mantissa if "." in mantissa else f"{mantissa}.0"  # YAML 1.1 takes 1e+16 for text
    sign = "" if power.startswith("-") or not power else "+"
    return f"{whole}{exponent}{sign}{power.removeprefix('+')}"


def _text(value: str) -> str:
    if PLAIN.fullmatch(value) and value.lower() not in WORDS_OF_YAML:
        return value
    return '"' + "".join(_character(character) for character in value) + '"'


def _character(character: str) -> str:
    if character in ESCAPED:
        return ESCAPED[character]
    if character.isprintable():
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
