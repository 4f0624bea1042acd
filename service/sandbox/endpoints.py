"""The hub's endpoints over HTTP.

A plain dispatch below aiohttp's low-level server, without router and middleware: that is what keeps the sandbox several
times faster than the clients it has to load-test.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final

from aiohttp import web

from service.sandbox.acceptance import RequestRefusedError, accept, find_model, read_body
from service.sandbox.answers import answer, brief_failure, failure, trouble
from service.sandbox.control import Control
from service.sandbox.generation import SUCCEEDED, Generation
from service.sandbox.hub import Hub
from service.sandbox.queueing import QUEUE, Queue
from service.sandbox.results import PREFIX as RESULTS
from service.sandbox.results import SignatureError

_MODELS: Final = "/api/ai/models"
_GENERATE: Final = {"/api/ai/videos/generate": "video", "/api/ai/images/generate": "image"}

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Endpoints:
    """Finds the handler of a request and runs it."""

    def __init__(self, hub: Hub, api_key: str) -> None:
        self._hub = hub
        self._authorization = f"Bearer {api_key}"
        self._control = Control(hub)
        queue = Queue(hub)
        self._exact: dict[tuple[str, str], Handler] = {
            ("POST", QUEUE): queue.enqueue,
            ("GET", QUEUE): queue.list,
            ("GET", "/api/events"): self._events,
            ("GET", _MODELS): self._list_models,
            ("GET", _MODELS + "/search"): self._list_models,
            **{("POST", path): self._generate for path in _GENERATE},
        }
        self._prefixed: dict[tuple[str, str], Handler] = {
            ("GET", QUEUE + "/"): queue.get,
            ("DELETE", QUEUE + "/"): queue.delete,
            ("GET", _MODELS + "/"): self._get_model,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            response = await self._dispatch(request)
        except RequestRefusedError as refusal:
            response = refusal.response
        if (offset_s := self._hub.faults.clock_offset_s) and not response.prepared:
            response.headers["Date"] = formatdate(time.time() + offset_s, usegmt=True)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
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
        return await handler(request)

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        self._hub.ledger.calls["events"] += 1
        if self._hub.faults.stream_refused:
            return trouble(self._hub.faults, 503, "stream_refused")
        return await self._hub.broadcast.serve(request)

    async def _generate(self, request: web.BaseRequest) -> web.Response:
        """Block until the files are there. One that fails fails the call."""
        self._hub.ledger.calls["generate"] += 1
        body = await read_body(request)
        model, media_type = find_model(self._hub, body), _GENERATE[request.path]
        if model.media_type != media_type:
            return failure(400, "invalid_params", f"The model {model.id} makes no {media_type}")
        inline = body.pop("response_format", "url") == "b64_json"
        generations = accept(self._hub, body)
        await asyncio.gather(*(self._hub.wait(generation) for generation in generations))
        for generation in generations:
            if generation.end != SUCCEEDED:
                return brief_failure(422, generation.error or f"The generation was {generation.end or 'forgotten'}")
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
        self._enter_models()
        return answer({"object": "list", "data": self._hub.catalog.search(request.query.get("search", ""))})

    async def _get_model(self, request: web.BaseRequest) -> web.Response:
        self._enter_models()
        model = self._hub.catalog.get(request.path[len(_MODELS) + 1 :])
        return answer(model.object) if model else brief_failure(404, "Model not found")

    def _enter_models(self) -> None:
        self._hub.ledger.calls["models"] += 1
        faults = self._hub.faults
        if faults.models_status is not None:
            raise RequestRefusedError(trouble(faults, faults.models_status, "models_status"))

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
