"""`/v1/generations`: what a caller without AMQP may do. A cancel goes over the bus like everybody's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from service.domain.errors import BrokerUnavailableError
from service.http.access import Refusal, refusal
from service.http.problems import problem
from service.wire.envelope import REQUEST_ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Cancel = Callable[[str], Awaitable[None]]


class Generations:
    """Routes under `/v1/generations`. `cancel` publishes one and returns when the broker has confirmed it."""

    def __init__(self, cancel: Cancel, *, tokens: Collection[str], listens_on: str) -> None:
        self._cancel = cancel
        self._tokens = tokens
        self._listens_on = listens_on

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.delete("/v1/generations/{request_id}", self._guarded(self._delete))]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            refused = refusal(request.method, request.headers, tokens=self._tokens, listens_on=self._listens_on)
            return await handler(request) if refused is None else problem(refused)

        return guarded

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """202: the request ends when it can; for an id that is not known yet, when it comes (within 24 hours)."""
        request_id = request.match_info["request_id"]
        if not REQUEST_ID.fullmatch(request_id):
            return problem(
                Refusal(422, "No request id", "A request id is 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
            )
        try:
            await self._cancel(request_id)
        except BrokerUnavailableError:
            return problem(Refusal(503, "Not confirmed", "The broker did not confirm the cancel; try again."))
        return web.json_response({"request_id": request_id, "status": "cancelling"}, status=202)
