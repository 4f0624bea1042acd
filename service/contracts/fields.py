"""A JSON Schema as a table: one row for each field, those of inner objects after their parent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.contracts.markup import Child, Markup, element, inline, joined

Node = Mapping[str, Any]
DEEPEST = 8
RANGES = (
    ("minimum", "maximum", "{}"),
    ("minLength", "maxLength", "{} characters"),
    ("minItems", "maxItems", "{} items"),
    ("minProperties", "maxProperties", "{} fields"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One field: the path of its parent, its own name, and its schema."""

    parent: str
    name: str
    schema: Node
    required: bool
    again: bool = False  # its inner fields stand above already


def field_table(schema: object, root: Node, *, heading: str = "field") -> Markup:
    """All fields of a schema; of one that is no object, one row for the whole."""
    found = list(_rows(_node(schema), root, "", frozenset(), set()))
    if not found:
        found = [Row("", "(the whole)", resolved(_node(schema), root), required=True)]
    return table((heading, "type", "required", "meaning", "limits"), [_cells(row, root) for row in found])


def table(columns: tuple[str, ...], rows: list[list[Child]]) -> Markup:
    """Any table; on a narrow screen each cell says which column it is of."""
    head = element("tr", (element("th", column, scope="col") for column in columns))
    body = (
        element("tr", (element("td", cell, data_label=column) for column, cell in zip(columns, row, strict=True)))
        for row in rows
    )
    return element("table", element("thead", head), element("tbody", body))


def resolved(schema: Node, root: Node) -> Node:
    """What a local reference leads to, with what stands beside it; itself where there is none, or it leads nowhere."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: object = root
        for part in reference.removeprefix("#/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping):
            break
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def type_name(schema: object, root: Node) -> str:
    """`string or null`, `list of Output`, the name of a definition."""
    node = _node(schema)
    whole = resolved(node, root)
    for keyword, word in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if whole.get(keyword):
            return word.join(dict.fromkeys(type_name(branch, root) for branch in whole[keyword]))
    kinds = whole.get("type")
    names = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if not names:
        names = ["object"] if "properties" in whole else [_kind_of(whole)]
    words = [f"list of {type_name(whole['items'], root)}" if n == "array" and "items" in whole else n for n in names]
    told = " or ".join("list" if word == "array" else word for word in words)
    if told == "object" and isinstance(node.get("$ref"), str):
        return str(node["$ref"]).rpartition("/")[2]
    return told


def _kind_of(schema: Node) -> str:
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    kinds = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "NoneType": "null"}
    return " or ".join(sorted({kinds.get(type(value).__name__, "any") for value in values})) or "any"


def _node(schema: object) -> Node:
    return schema if isinstance(schema, Mapping) else {}


def _rows(schema: Node, root: Node, parent: str, inside: frozenset[str], seen: set[str]) -> Iterator[Row]:
    """`inside` are the definitions that this one stands in, `seen` those whose fields are in the table already."""
    names = frozenset(_references(schema))
    if names & inside or len(inside) > DEEPEST:
        return
    for node, prefix in _objects(schema, root, parent):
        required = node.get("required") or ()
        for name, value in _node(node.get("properties")).items():
            known = set(_references(_node(value)))
            again = bool(known & seen)
            yield Row(prefix, str(name), {**resolved(_node(value), root), **_name_of(value)}, name in required, again)
            if not again:
                seen |= known
                yield from _rows(_node(value), root, f"{prefix}{name}.", inside | names, seen)


def _name_of(value: object) -> dict[str, object]:
    reference = _node(value).get("$ref")
    return {"$ref": reference} if reference else {}


def _references(schema: Node) -> Iterator[str]:
    """The definitions that a field leads to, through lists and choices."""
    if isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
        return
    for inner in (*([schema["items"]] if "items" in schema else []), *_branches(schema)):
        yield from _references(_node(inner))


def _branches(schema: Node) -> list[object]:
    return [branch for keyword in ("anyOf", "oneOf", "allOf") for branch in schema.get(keyword) or ()]


def _objects(schema: Node, root: Node, parent: str, depth: int = 0) -> Iterator[tuple[Node, str]]:
    """The objects of which a field consists, each with the path before its fields."""
    whole = resolved(schema, root)
    if depth > DEEPEST:
        return
    if "properties" in whole:
        yield whole, parent
    if "items" in whole and whole.get("maxItems") != 0:
        path = f"{parent.removesuffix('.')}[]." if parent else "[]."
        yield from _objects(_node(whole["items"]), root, path, depth + 1)
    for branch in _branches(whole):
        yield from _objects(_node(branch), root, parent, depth + 1)


def _cells(row: Row, root: Node) -> list[Child]:
    schema = row.schema
    name = element("code", element("span", row.parent, class_="parent") if row.parent else None, row.name)
    meaning: list[Child] = [inline(schema.get("description"))]
    if row.again:
        meaning.append(element("span", " Its fields are those above.", class_="quiet"))
    if schema.get("deprecated"):
        meaning.append(element("strong", " Deprecated."))
    required = element("strong", "yes") if row.required else element("span", "no", class_="quiet")
    return [name, type_name(schema, root), required, meaning, _limits(schema)]


def _limits(schema: Node) -> Markup:
    told: list[Child] = [[word, told_as(schema[key])] for key, word, told_as in WORDS if key in schema]
    for low, high, words in RANGES:
        if low in schema or high in schema:
            least = schema.get(low) or None if low != "minimum" else schema.get(low)  # no length is less than none
            told.append(_words(words, least, schema.get(high)))
    forbidden = _node(_node(schema.get("propertyNames")).get("not")).get("enum")
    if forbidden:
        told.append(["no field ", _listed(forbidden)])
    if schema.get("additionalProperties") is False:
        told.append("no other fields")
    return joined(element("span", item, class_="limit") for item in told)


def _words(words: str, low: object, high: object) -> str:
    if high == 0 and words != "{}":
        return "empty"
    return "not empty" if (low, high) == (1, None) and words != "{}" else words.format(_span(low, high))


def _span(low: object, high: object) -> str:
    if low == high:
        return f"exactly {low}"
    if low is None:
        return "any number of" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _listed(values: list[object]) -> Markup:
    return joined([", " if number else "", _value(value)] for number, value in enumerate(values))


def _value(value: object) -> Markup:
    return element("code", json.dumps(value, ensure_ascii=False, default=str))


def _text(value: object) -> Markup:
    return element("code", str(value))


WORDS: tuple[tuple[str, str, Callable[[Any], Markup]], ...] = (
    ("const", "always ", _value),
    ("default", "default ", _value),
    ("enum", "one of ", _listed),
    ("x-extensible-enum", "at present ", _listed),
    ("exclusiveMinimum", "above ", _text),
    ("exclusiveMaximum", "below ", _text),
    ("multipleOf", "multiple of ", _text),
    ("format", "format ", _text),
    ("pattern", "pattern ", _text),
)
