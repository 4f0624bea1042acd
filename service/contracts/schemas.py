"""JSON Schema 2020-12 of every message, made from the models and from the limits that are judged beside them.

Only keywords that draft 7 has as well are used, besides `$defs`: AsyncAPI's own dialect is built on that draft.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from service.contracts.events import EVENTS
from service.wire.cancels import CancelBody
from service.wire.envelope import REQUEST_ID, CloudEvent
from service.wire.requests import NOT_PARAMETERS, RFC_3339, RequestBody

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
LOCAL = "#/$defs/"
REQUEST, CANCEL = "generation.request", "generation.cancel"
ENVELOPED = ".cloudevents"
KEYWORDS = ("$schema", "$id", "$ref", "title", "description", "type", "const", "enum", "format", "pattern")
LAST = ("properties", "required", "additionalProperties", "examples", "$defs")

# What `read_message` judges besides the model, as far as a schema can say it. It cannot: the bytes of `metadata` and of
# the whole body (256 KiB), numbers beyond 64 bits, NUL characters, and what the operator allows.
REQUEST_LIMITS: dict[str, Schema] = {
    "request_id": {"pattern": f"^{REQUEST_ID.pattern}$"},
    "input": {"propertyNames": {"not": {"enum": list(NOT_PARAMETERS)}}},
    "deadline": {"pattern": f"^{RFC_3339.pattern}$".replace(r"\d", "[0-9]")},
}
CANCEL_LIMITS: dict[str, Schema] = {"request_id": {"pattern": f"^{REQUEST_ID.pattern}$"}}


@dataclass(frozen=True, slots=True)
class MessageSchema:
    """One message: `incoming` is what others send to drover, the rest is what they receive."""

    name: str
    incoming: bool
    schema: Schema


def message_schemas() -> dict[str, MessageSchema]:
    """Every message by its name: those of the routing keys, and the incoming ones in a CloudEvents envelope."""
    request = _described(RequestBody, "GenerationRequest", "What is to be generated.", REQUEST_LIMITS)
    cancel = _described(CancelBody, "GenerationCancel", "Which request is to end.", CANCEL_LIMITS)
    bare = {REQUEST: request, CANCEL: cancel}
    enveloped = {f"{name}{ENVELOPED}": _enveloped(schema) for name, schema in bare.items()}
    found = [MessageSchema(name, incoming=True, schema=schema) for name, schema in {**bare, **enveloped}.items()]
    for name, model in EVENTS.items():
        title = "Generation" + name.value.partition(".")[2].capitalize()
        schema = {**tidied(model.model_json_schema()), "title": title}
        found.append(MessageSchema(name.value, incoming=False, schema=schema))
    return {message.name: message for message in found}


def standalone(message: MessageSchema, examples: list[object]) -> Schema:
    """The schema as a document of its own."""
    head = {"$schema": DIALECT, "$id": f"urn:drover:schemas:v1:{message.name}"}
    body = {key: value for key, value in message.schema.items() if key != "$defs"}
    definitions = {"$defs": message.schema["$defs"]} if "$defs" in message.schema else {}
    return in_order({**head, **body, "examples": examples, **definitions})


def components(prefix: str) -> dict[str, Schema]:
    """All schemas and what they refer to, flat and by title, with references that begin with `prefix`."""
    found: dict[str, Schema] = {}
    for message in message_schemas().values():
        named = {**message.schema.get("$defs", {}), message.schema["title"]: message.schema}
        for title, schema in named.items():
            flat = in_order(referred({key: value for key, value in schema.items() if key != "$defs"}, prefix))
            if found.setdefault(title, flat) != flat:
                raise ValueError(f"Two schemas are called {title}; give one of the models another name.")
    return found


def referred(schema: Schema, prefix: str) -> Schema:
    """A copy whose references point to `prefix` instead of the document's own definitions."""
    moved = copy.deepcopy(schema)
    for node in _nodes(moved):
        if isinstance(node.get("$ref"), str):
            node["$ref"] = node["$ref"].replace(LOCAL, prefix, 1)
    return moved


def in_order(schema: Schema) -> Schema:
    """The same schema with its keywords in the order in which people read them; examples stay as they are."""
    known = {key: schema[key] for key in KEYWORDS if key in schema}
    rest = {key: value for key, value in schema.items() if key not in (*KEYWORDS, *LAST)}
    ordered = {**known, **rest, **{key: schema[key] for key in LAST if key in schema}}
    for key in ("properties", "$defs"):
        if key in ordered:
            ordered[key] = {name: in_order(inner) for name, inner in ordered[key].items()}
    return {key: in_order(value) if key in ("items", "propertyNames") else value for key, value in ordered.items()}


def _described(model: type[BaseModel], title: str, description: str, limits: Mapping[str, Schema]) -> Schema:
    schema = {**tidied(model.model_json_schema()), "title": title, "description": description}
    for name, limit in limits.items():
        schema["properties"][name].update(limit)
    return schema


def _enveloped(schema: Schema) -> Schema:
    title = schema["title"]
    envelope = tidied(CloudEvent.model_json_schema())
    envelope["title"] = f"{title}CloudEvent"
    envelope["description"] = (
        f"A {title} in the structured envelope of CloudEvents 1.0 (`application/cloudevents+json`). "
        "Extension attributes are allowed."
    )
    envelope["properties"]["data"] = {"$ref": LOCAL + title}
    return {**envelope, "$defs": {title: schema}}


def tidied(schema: Schema) -> Schema:
    """Without what pydantic says and nobody needs; a nullable value as one type with two names."""
    for node in reversed(list(_nodes(schema))):  # the inner ones first
        for field in node.get("properties", {}).values():
            field.pop("title", None)
            if field.get("default", ...) in (None, ""):  # stands for absent
                del field["default"]
        if node.get("additionalProperties") is True:
            del node["additionalProperties"]
        match node.get("anyOf"):
            case [{"type": str() as kind} as only, {"type": "null"}]:
                del node["anyOf"]
                node.update({**only, **node, "type": [kind, "null"]})
        if isinstance(node.get("description"), str):
            node["description"] = re.sub(r"\s+", " ", node["description"])
    return schema


def _nodes(value: object) -> Iterator[Schema]:
    """Every object in a document, the outer ones first."""
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from _nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item)
