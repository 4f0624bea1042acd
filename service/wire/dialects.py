"""What schemas of models say in other dialects, put into JSON Schema's own words; and how much there is to a schema.

Two habits of OpenAPI 3.0 and draft 4 are common in the wild without a `$schema` that would allow them: `nullable: true`
(no keyword of any draft: a null that the model takes would be refused) and `exclusiveMinimum: true`. Everything else
stays as it is, unknown keywords included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

_ONE = (
    *("items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties", "unevaluatedProperties"),
    *("propertyNames", "not", "if", "then", "else"),
)
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies", "schemas")
_WHOLE = ("$ref", "$dynamicRef", "$recursiveRef", "const", "allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_EXCLUSIVE = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))
DRAFT_4 = "http://json-schema.org/draft-04/schema"


def in_plain_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without `nullable: true` and boolean exclusive limits. What draft 4 says by its own rules stays."""
    return _plain(schema, draft_4=schema.get("$schema") in (DRAFT_4, DRAFT_4 + "#"))


def _plain(schema: Mapping[str, Any], *, draft_4: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _LISTS and isinstance(value, list):
            out[key] = [_subschema(item, draft_4=draft_4) for item in value]
        elif key in _MAPS and isinstance(value, Mapping):
            out[key] = {name: _subschema(item, draft_4=draft_4) for name, item in value.items()}
        elif key in _ONE or key == "components":  # OpenAPI keeps its definitions in /components/schemas
            out[key] = _subschema(value, draft_4=draft_4)
        else:
            out[key] = value
    if not draft_4:
        for exclusive, limit in _EXCLUSIVE:
            if isinstance(out.get(exclusive), bool) and out.pop(exclusive) and limit in out:
                out[exclusive] = out.pop(limit)
    if out.get("additionalProperties") is False:
        out.setdefault("properties", {})  # without it, jsonschema-rs does not say which names are too many
    return _with_null(out) if out.get("nullable") is True else out


def _subschema(value: object, *, draft_4: bool) -> object:
    return _plain(value, draft_4=draft_4) if isinstance(value, Mapping) else value


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, with null. What cannot be widened in its place becomes one of two alternatives."""
    types, options = schema.get("type"), schema.get("enum")
    if isinstance(types, str | list):
        schema["type"] = list(dict.fromkeys([types, "null"] if isinstance(types, str) else [*types, "null"]))
    if isinstance(options, list) and None not in options:
        schema["enum"] = [*options, None]
    whole = {key: schema.pop(key) for key in _WHOLE if key in schema}
    if whole:
        schema["anyOf"] = [whole, {"type": "null"}]
    return schema


def resolve(root: Mapping[str, Any], reference: object) -> object:
    """What a reference inside the document points to; None for any other reference, and for what is not there."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    node: object = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping):
            node = node.get(name)
        elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node


class Extent:
    """How much a schema is when every reference is written out: `subschemas`, and whether it is `recursive`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._sizes: dict[int, int | None] = {}  # None: being measured
        self.recursive = False
        self.subschemas = self._measure(root)

    def _measure(self, node: object) -> int:
        if not isinstance(node, Mapping | list):
            return 0
        if id(node) in self._sizes:
            size = self._sizes[id(node)]
            self.recursive = self.recursive or size is None
            return size or 0
        self._sizes[id(node)] = None
        size = isinstance(node, Mapping) + sum(map(self._measure, node.values() if isinstance(node, Mapping) else node))
        if isinstance(node, Mapping):
            size += self._measure(resolve(self._root, node.get("$ref")))
        self._sizes[id(node)] = size
        return size
