"""What the hub checks before it accepts a request; parameters are not among it."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from service.sandbox.answers import brief_failure, failure
from service.sandbox.catalog import Model
from service.sandbox.generation import Generation
from service.sandbox.hub import Hub

_OWN_FIELDS: Final = ("model", "num_generations", "target_namespace")
_MOST_GENERATIONS: Final = 4


class RequestRefusedError(Exception):
    """A request that is not accepted, with its answer."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


async def read_body(request: web.BaseRequest) -> dict[str, Any]:
    """The JSON object in a request, or RequestRefusedError."""
    kind = request.headers.get("Content-Type", "")
    if kind != "application/json" and request.content_type != "application/json":
        raise RequestRefusedError(failure(415, "unsupported_media_type", "The content type must be application/json"))
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise RequestRefusedError(failure(400, "invalid_params", "The body is not JSON")) from None
    if not isinstance(body, dict):
        raise RequestRefusedError(failure(400, "invalid_params", "The body must be a JSON object"))
    return body


def find_model(hub: Hub, body: dict[str, Any]) -> Model:
    """The model that a body names, or RequestRefusedError."""
    name = body.get("model")
    if not name:
        raise RequestRefusedError(failure(400, "invalid_params", "model is required"))
    model = hub.catalog.get(name)
    if model is None:
        raise RequestRefusedError(failure(404, "resource_not_found", f"There is no model {name}"))
    if model.media_type is None:
        raise RequestRefusedError(brief_failure(400, f"The model {model.id} makes neither images nor video"))
    return model


def accept(hub: Hub, body: dict[str, Any], *, at_once: bool = False) -> list[Generation]:
    """Start what a body asks for, or RequestRefusedError. With `at_once` it ends without delay."""
    model = find_model(hub, body)
    count = body.get("num_generations", 1)
    if type(count) is not int or not 1 <= count <= _MOST_GENERATIONS:
        raise RequestRefusedError(failure(400, "invalid_params", "num_generations must be an integer from 1 to 4"))
    namespace = body.get("target_namespace")
    if namespace is not None and not isinstance(namespace, str):
        raise RequestRefusedError(failure(400, "invalid_params", "target_namespace must be a string"))
    allowed = hub.faults.namespaces
    if allowed is not None and namespace is not None and namespace not in allowed:
        raise RequestRefusedError(brief_failure(403, f"The key may not bill the namespace {namespace}"))
    for field in _OWN_FIELDS:
        body.pop(field, None)
    return hub.accept(model, body, namespace, count, at_once=at_once)
