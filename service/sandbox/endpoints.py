"""The hub's endpoints over HTTP.

A plain dispatch below aiohttp's low-level server, without router and middleware: that is what keeps the sandbox several
times faster than the clients it has to load-test.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from service.sandbox.answers import answer, brief_failure, failure
from service.sandbox.catalog import Model
from service.sandbox.control import Control
from service.sandbox.generation import SUCCEEDED, Generation
from service.sandbox.hub import Hub
from service.sandbox.results import PREFIX as RESULTS
from service.sandbox.results import SignatureError

_QUEUE: Final = "/api/ai/queue"
_MODELS: Final = "/api/ai/models"
_GENERATE: Final = {"/api/ai/videos/generate": "video", "/api/ai/images/generate": "image"}
_OWN_FIELDS: Final = ("model", "num_generations", "target_namespace")
_MOST_GENERATIONS: Final = 4

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class RequestRefusedError(Exception):
    """A request that is not accepted, with its answer."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class Endpoints:
    """Finds the handler of a request and runs it."""

    def __init__(self, hub: Hub, api_key: str) -> None:
        self._hub = hub
        self._authorization = f"Bearer {api_key}"
        self._control = Control(hub)
        self._exact: dict[tuple[str, str], Handler] = {
            ("POST", _QUEUE): self._enqueue,
            ("GET", _QUEUE): self._list,
            ("GET", "/api/events"): self._events,
            ("GET", _MODELS): self._list_models,
            ("GET", _MODELS + "/search"): self._list_models,
            **{("POST", path): self._generate for path in _GENERATE},
        }
        self._prefixed: dict[tuple[str, str], Handler] = {
            ("GET", _QUEUE + "/"): self._get,
            ("DELETE", _QUEUE + "/"): self._delete,
            ("GET", _MODELS + "/"): self._get_model,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, method = request.path, request.method
        if path.startswith("/sandbox/"):
            return await self._control.handle(request)
        if path.startswith(RESULTS):
            return self._result(request)
        if request.headers.get("Authorization") != self._authorization:
            self._hub.ledger.calls["unauthorized"] += 1
            return failure(401, "unauthenticated", "The API key is missing or not valid")
        handler = self._exact.get((method, path)) or self._prefixed.get((method, path[: path.rfind("/") + 1]))
        if handler is None:
            return failure(404, "resource_not_found", f"There is no {method} {path}")
        try:
            return await handler(request)
        except RequestRefusedError as refusal:
            return refusal.response

    # -- the queue ----------------------------------------------------------------------------------------------

    async def _enqueue(self, request: web.BaseRequest) -> web.Response:
        hub = self._hub
        hub.ledger.calls["post"] += 1
        body = await _body(request)
        faults = hub.faults
        if faults.post_status is not None:
            return failure(faults.post_status, "unknown_error", "A fault was asked of the sandbox: post_status")
        generations = self._accept(body)
        # Written before the fault below lets time pass: an accepted generation is answered as queued.
        response = answer({"generations": [{"generation_id": g.id, "status": "queued"} for g in generations]})
        if faults.answer_delay_s:
            await asyncio.sleep(faults.answer_delay_s)
        if hub.chance(faults.answers_lost) and request.transport is not None:
            request.transport.abort()
        return response

    async def _list(self, request: web.BaseRequest) -> web.Response:
        self._hub.ledger.calls["list"] += 1
        found = [self._hub.view(generation) for generation in self._hub.ledger.find(request.query)]
        return answer({"count": len(found), "generations": found})

    async def _get(self, request: web.BaseRequest) -> web.Response:
        self._hub.ledger.calls["get"] += 1
        return answer(self._hub.view(self._named(request)))

    async def _delete(self, request: web.BaseRequest) -> web.Response:
        self._hub.ledger.calls["delete"] += 1
        generation = self._named(request)
        self._hub.cancel(generation)
        return answer({"status": "success", "generation_id": generation.id})

    def _named(self, request: web.BaseRequest) -> Generation:
        generation = self._hub.ledger.generations.get(request.path[len(_QUEUE) + 1 :])
        if generation is None:
            raise RequestRefusedError(failure(404, "resource_not_found", "There is no such generation"))
        return generation

    def _accept(self, body: dict[str, Any]) -> list[Generation]:
        """All that the hub checks at a POST; parameters are not among it."""
        model = self._model(body)
        count = body.get("num_generations", 1)
        if type(count) is not int or not 1 <= count <= _MOST_GENERATIONS:
            raise RequestRefusedError(failure(400, "invalid_params", "num_generations must be an integer from 1 to 4"))
        namespace = body.get("target_namespace")
        if namespace is not None and not isinstance(namespace, str):
            raise RequestRefusedError(failure(400, "invalid_params", "target_namespace must be a string"))
        allowed = self._hub.faults.namespaces
        if allowed is not None and namespace is not None and namespace not in allowed:
            raise RequestRefusedError(brief_failure(403, f"The key may not bill the namespace {namespace}"))
        for field in _OWN_FIELDS:
            body.pop(field, None)
        return self._hub.accept(model, body, namespace, count)

    def _model(self, body: dict[str, Any]) -> Model:
        name = body.get("model")
        if not name:
            raise RequestRefusedError(failure(400, "invalid_params", "model is required"))
        model = self._hub.catalog.get(name)
        if model is None:
            raise RequestRefusedError(failure(404, "resource_not_found", f"There is no model {name}"))
        if model.media_type is None:
            raise RequestRefusedError(brief_failure(400, f"The model {model.id} makes neither images nor video"))
        return model

    # -- the rest -----------------------------------------------------------------------------------------------

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        self._hub.ledger.calls["events"] += 1
        if self._hub.faults.stream_refused:
            return brief_failure(503, "A fault was asked of the sandbox: stream_refused")
        return await self._hub.broadcast.serve(request)

    async def _generate(self, request: web.BaseRequest) -> web.Response:
        """Block until the files are there. One that fails fails the call."""
        self._hub.ledger.calls["generate"] += 1
        body = await _body(request)
        model, media_type = self._model(body), _GENERATE[request.path]
        if model.media_type != media_type:
            return failure(400, "invalid_params", f"The model {model.id} makes no {media_type}")
        inline = body.pop("response_format", "url") == "b64_json"
        generations = self._accept(body)
        await asyncio.gather(*(self._hub.wait(generation) for generation in generations))
        for generation in generations:
            if generation.end != SUCCEEDED:
                return brief_failure(422, generation.error or f"The generation was {generation.end}")
        outputs = [await self._output(generation, inline=inline) for generation in generations]
        return answer({"model": model.id, "created": int(time.time()), f"{media_type}s": outputs})

    async def _output(self, generation: Generation, *, inline: bool) -> dict[str, str | None]:
        if not inline:
            return {"url": self._hub.result_url(generation)}
        if generation.file is None:
            raise RequestRefusedError(
                brief_failure(422, "The sandbox runs without rendering: there is no file to put inline")
            )
        content = await asyncio.to_thread(generation.file.read_bytes)
        return {"b64_json": base64.b64encode(content).decode()}

    async def _list_models(self, request: web.BaseRequest) -> web.Response:
        self._hub.ledger.calls["models"] += 1
        return answer({"object": "list", "data": self._hub.catalog.search(request.query.get("search", ""))})

    async def _get_model(self, request: web.BaseRequest) -> web.Response:
        self._hub.ledger.calls["models"] += 1
        model = self._hub.catalog.get(request.path[len(_MODELS) + 1 :])
        return answer(model.object) if model else brief_failure(404, "Model not found")

    def _result(self, request: web.BaseRequest) -> web.StreamResponse:
        """A result file, to whoever holds a signed URL; byte ranges are served, for players that seek."""
        self._hub.ledger.calls["results"] += 1
        if request.method not in {"GET", "HEAD"}:
            return failure(404, "resource_not_found", f"There is no {request.method} {request.path}")
        try:
            self._hub.results.verify(request.path, request.query)
        except SignatureError as refusal:
            return brief_failure(403, str(refusal))
        path = self._hub.results.find(request.path[len(RESULTS) :])
        if path is None:
            return failure(404, "resource_not_found", "Evicted for space, or never rendered: see --no-render")
        return web.FileResponse(path)


async def _body(request: web.BaseRequest) -> dict[str, Any]:
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
