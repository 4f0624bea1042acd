"""Whether new schemas break somebody who was built against old ones. Pure: schemas in, findings out.

One question answers both directions: does the reader take everything that the writer may write? Of what others send
us, the writer is a producer built against the old schema, and the reader is the new service. Of events, the writer is
the new service, and the reader a consumer built against the old schema. Every keyword is compared by a rule here; one
without a rule is an UnknownKeywordError, since to ignore it could be to miss a break.

Open lists (`x-extensible-enum`) are not compared: consumers were told that they grow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from service.contracts.schemas import LOCAL, MessageSchema, Schema
from service.domain.errors import PermanentError

SPEECH = {"$schema", "$id", "title", "description", "examples", "$defs", "x-extensible-enum"}
COMPARED = {"$ref", "type", "enum", "const", "anyOf", "not", "default"}
STRINGS = {"minLength", "maxLength", "pattern", "format"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
ARRAYS = {"items", "minItems", "maxItems"}
OBJECTS = {"properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"}
KEYWORDS = SPEECH | COMPARED | STRINGS | NUMBERS | ARRAYS | OBJECTS
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
OF_KIND = {"string": STRINGS, "number": NUMBERS, "integer": NUMBERS, "array": ARRAYS, "object": OBJECTS}
ALL_TYPES = frozenset({"string", "number", "integer", "array", "object", "boolean", "null"})


class UnknownKeywordError(PermanentError):
    """A schema uses a keyword for which this check has no rule."""


@dataclass(frozen=True, slots=True)
class Break:
    """One change that breaks somebody: in which message, where (a path of fields), and why."""

    message: str
    path: str
    reason: str


def breaks(old: Mapping[str, MessageSchema], new: Mapping[str, MessageSchema]) -> list[Break]:
    """Everything that changed from `old` to `new` and breaks a producer or a consumer; empty: compatible.

    A message more is compatible. UnknownKeywordError, whichever side uses it.
    """
    found = []
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            found.append(Break(name, "", "the message is gone"))
        elif after.incoming != before.incoming:
            found.append(Break(name, "", "the message goes the other way"))
        else:
            writer, reader = (before, after) if before.incoming else (after, before)
            comparison = _Comparison(writer.schema, reader.schema, incoming=before.incoming)
            found += [Break(name, path, reason) for path, reason in comparison.gaps()]
    for message in new.values():
        _check(message.schema)
    return found


def _check(schema: object) -> None:
    """Refuses what no rule knows, wherever it stands."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise UnknownKeywordError(f"A schema is an object or a boolean, not {schema!r}.")
    unknown = set(schema) - KEYWORDS
    if unknown:
        raise UnknownKeywordError(f"The compatibility check has no rule for {', '.join(sorted(unknown))}.")
    for keyword in ("$ref", "anyOf"):
        if keyword in schema and set(schema) - SPEECH - {keyword, "default"}:
            raise UnknownKeywordError(f"The compatibility check has no rule for {keyword} beside other keywords.")
    if isinstance(schema.get("not"), bool):
        raise UnknownKeywordError("The compatibility check has no rule for a `not` that is no object.")
    inner = [schema[key] for key in ("items", "not", "additionalProperties", "propertyNames") if key in schema]
    inner += schema.get("anyOf", [])
    for key in ("properties", "$defs"):
        inner += schema.get(key, {}).values()
    for item in inner:
        _check(item)


class _Comparison:
    """One writer's schema against one reader's, each with its own definitions."""

    def __init__(self, writer: Schema, reader: Schema, *, incoming: bool) -> None:
        _check(writer)
        _check(reader)
        self._writer, self._reader, self._incoming = writer, reader, incoming
        self._open: set[tuple[str, str]] = set()  # pairs of definitions under comparison: a schema may hold itself

    def gaps(self) -> list[tuple[str, str]]:
        """Where the reader may refuse or miss what the writer writes: (path, why), each once."""
        return list(dict.fromkeys(self._gaps(self._writer, self._reader, "")))

    def _gaps(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        if not set(reader) - SPEECH:
            return
        if "$ref" in writer or "$ref" in reader:
            pair = (writer.get("$ref", ""), reader.get("$ref", ""))
            if all(pair) and pair in self._open:
                return
            self._open.add(pair)
            yield from self._gaps(_resolved(self._writer, writer), _resolved(self._reader, reader), path)
            self._open.discard(pair)
        elif "anyOf" in writer:
            for branch in writer["anyOf"]:
                yield from self._gaps(branch, reader, path)
        elif "anyOf" in reader:
            yield from self._some_branch(writer, reader, path)
        else:
            yield from self._keywords(writer, reader, path)

    def _some_branch(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        """What one branch of the reader takes is taken; each of several types of the writer may find its own branch."""
        types = sorted(_types(writer))
        parts = [writer] if _finite(writer) is not None else [{**writer, "type": one} for one in types]
        for part in parts:
            tries = [list(self._gaps(part, branch, path)) for branch in reader["anyOf"]]
            if not any(found == [] for found in tries):
                yield from min(tries, key=len)

    def _keywords(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        finite = _finite(writer)
        if finite is not None:
            yield from self._values(finite, reader, path)
            return
        if _finite(reader) is not None:
            told = _shown(_finite(reader))
            yield path, "is not taken" if told == "nothing" else f"may be other than {told}"
            return
        extra = _types(writer) - _types(reader)
        if "number" in _types(reader):
            extra -= {"integer"}
        if extra:
            yield path, f"may be of the type {', '.join(sorted(extra))}"
        if "not" in reader:
            yield from self._not(writer, reader, path)
        kinds = {keyword for kind in _types(writer) for keyword in OF_KIND.get(kind, ())}
        yield from _bounds(writer, reader, path, kinds)
        for keyword in ("pattern", "format"):
            if keyword in kinds and keyword in reader and writer.get(keyword) != reader[keyword]:
                yield path, f"need not have the {keyword} {reader[keyword]}"
        if "items" in kinds and "items" in reader and writer.get("maxItems") != 0:
            yield from self._gaps(_inner(writer, "items"), _inner(reader, "items"), f"{path}[]")
        if "properties" in kinds:
            yield from self._object(writer, reader, path)

    def _values(self, values: list[Any], reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        """A list of values is judged value by value, by a validator."""
        whole = {"$defs": self._reader.get("$defs", {}), **reader}
        validator = jsonschema_rs.validator_for(whole, offline=True, validate_formats=True)
        refused = [value for value in values if not validator.is_valid(value)]
        if refused:
            yield path, f"may be {_shown(refused)}, which is not taken"

    def _not(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        """What the reader refuses, the writer must not write: it refuses that as well."""
        turned = _Comparison(
            {"$defs": self._reader.get("$defs", {}), **reader["not"]},
            {"$defs": self._writer.get("$defs", {}), **writer.get("not", {})},
            incoming=False,
        )
        if "not" not in writer or turned.gaps():
            yield path, f"may be what is refused: {json.dumps(reader['not'], sort_keys=True)}"

    def _object(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        for name in reader.get("required", []):
            if name not in writer.get("required", []):
                yield f"{path}/{name}", "is required, and need not be there"
        yield from self._known(writer, reader, path)
        taken = _inner(reader, "additionalProperties")
        for name, schema in writer.get("properties", {}).items():
            if name not in reader.get("properties", {}):
                yield from self._gaps(_schema(schema), taken, f"{path}/{name}")
        if writer.get("additionalProperties") is not False:
            yield from self._gaps(_inner(writer, "additionalProperties"), taken, f"{path}/*")
        if "propertyNames" in reader:
            named, names = ({"type": "string", **_inner(side, "propertyNames")} for side in (writer, reader))
            yield from self._gaps(named, names, f"{path}/*")

    def _known(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        """The fields that the reader knows."""
        written = writer.get("properties", {})
        for name, value in reader.get("properties", {}).items():
            schema = _schema(value)
            if name in written:
                yield from self._gaps(_schema(written[name]), schema, f"{path}/{name}")
                if name not in writer.get("required", []):
                    yield from self._default(_schema(written[name]), schema, f"{path}/{name}")
            elif writer.get("additionalProperties") is not False and set(schema) - SPEECH:
                yield f"{path}/{name}", "is described by nothing any more, and may be anything"

    def _default(self, writer: Schema, reader: Schema, path: str) -> Iterator[tuple[str, str]]:
        """What stands in for a field that a producer leaves out is part of what its request means."""
        before, after = writer.get("default"), reader.get("default")
        if self._incoming and before != after:
            yield path, f"has another default, {json.dumps(after)} instead of {json.dumps(before)}"


def _schema(value: bool | Schema) -> Schema:  # noqa: FBT001 - JSON Schema's own
    """`true` takes everything, `false` nothing."""
    if isinstance(value, bool):
        return {} if value else {"enum": []}
    return value


def _inner(schema: Schema, keyword: str) -> Schema:
    return _schema(schema.get(keyword, True))


def _bounds(writer: Schema, reader: Schema, path: str, kinds: set[str]) -> Iterator[tuple[str, str]]:
    rules: list[tuple[tuple[str, ...], Callable[[Any, Any], bool]]] = [
        (LOWER, lambda wrote, reads: bool(wrote < reads)),
        (UPPER, lambda wrote, reads: bool(wrote > reads)),
    ]
    for keywords, beyond in rules:
        for keyword in keywords:
            if keyword in kinds and keyword in reader and not _implied(writer, reader, keyword, beyond):
                yield path, f"may be beyond the {keyword} {reader[keyword]}"


def _implied(writer: Schema, reader: Schema, keyword: str, beyond: Callable[[Any, Any], bool]) -> bool:
    if keyword in ("minLength", "minItems", "minProperties") and reader[keyword] == 0:
        return True
    return keyword in writer and not beyond(writer[keyword], reader[keyword])


def _resolved(root: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    if not reference.startswith(LOCAL) or reference.removeprefix(LOCAL) not in root.get("$defs", {}):
        raise UnknownKeywordError(f"The reference {reference} leads out of the schema.")
    target: Schema = root["$defs"][reference.removeprefix(LOCAL)]
    return {**target, **_without(schema, "$ref")}


def _without(schema: Schema, keyword: str) -> Schema:
    return {key: value for key, value in schema.items() if key != keyword}


def _types(schema: Schema) -> frozenset[str]:
    kind = schema.get("type")
    if kind is None:
        return ALL_TYPES
    return frozenset([kind] if isinstance(kind, str) else kind)


def _finite(schema: Schema) -> list[Any] | None:
    """All values that it takes, when they are listed."""
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    return [None] if _types(schema) == {"null"} else None


def _shown(values: Sequence[object] | None) -> str:
    return ", ".join(json.dumps(value) for value in values or ()) or "nothing"
