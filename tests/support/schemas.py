"""The contract's schemas as a strict reader: what they leave open for later versions counts as a fault today."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from service.contracts.schemas import message_schemas

OPEN_ENUM = "x-extensible-enum"


@cache
def validator(message: str, *, strict: bool = True) -> jsonschema_rs.Validator:
    """Judges documents of one message, formats included. What comes in says itself where it is open: envelopes are."""
    told = message_schemas()[message]
    schema = closed(told.schema) if strict and not told.incoming else told.schema
    return jsonschema_rs.validator_for(schema, offline=True, validate_formats=True)


def closed(schema: Any) -> Any:
    """The schema without room for growth: no field besides those described, no value besides those listed."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if OPEN_ENUM in made:
        made["enum"] = [*made[OPEN_ENUM], *([None] if "null" in made["type"] else [])]
    return made


def faults(message: str, document: object) -> list[str]:
    """What a strict reader finds wrong, each with its place; empty when it fits."""
    found = validator(message).iter_errors(document)
    return [f"/{'/'.join(map(str, error.instance_path))}: {error.message}" for error in found]


def event_faults(event: Mapping[str, Any]) -> list[str]:
    """The same of an event, by the schema of the name that it carries."""
    return faults(str(event["type"]).removeprefix("drover.").removesuffix(".v1"), event)
