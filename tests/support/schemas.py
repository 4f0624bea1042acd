"""The contract's schemas as a strict reader: what they leave open for later versions counts as a fault today."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from service.contracts.schemas import Schema, message_schemas

OPEN_ENUM = "x-extensible-enum"


@cache
def validator(message: str, *, strict: bool = True) -> jsonschema_rs.Validator:
    """Judges documents of one message, formats included. What comes in says itself where it is open: envelopes are."""
    told = message_schemas()[message]
    schema = closed(told.schema) if strict and not told.incoming else told.schema
    return jsonschema_rs.validator_for(schema, offline=True, validate_formats=True)


def closed(schema: Schema) -> Schema:
    """The schema without room for growth: no field besides those described, no value besides those listed."""
    made = copy.deepcopy(schema)
    for node in nodes(made):
        if "properties" in node and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        if OPEN_ENUM in node:
            node["enum"] = [*node[OPEN_ENUM], *([None] if "null" in node["type"] else [])]
    return made


def nodes(value: object) -> Iterator[Schema]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def faults(message: str, document: object) -> list[str]:
    """What a strict reader finds wrong, each with its place; empty when it fits."""
    found = validator(message).iter_errors(document)
    return [f"/{'/'.join(map(str, error.instance_path))}: {error.message}" for error in found]


def event_faults(event: Mapping[str, Any]) -> list[str]:
    """The same of an event, by the schema of the name that it carries."""
    return faults(str(event["type"]).removeprefix("drover.").removesuffix(".v1"), event)
