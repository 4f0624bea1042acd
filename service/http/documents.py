"""What is for all to read: `/openapi.json`, and `/docs`, the contract as a page."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from service.contracts import openapi
from service.wire.json import dumps


class Documents:
    """The routes. Each is made when it is asked for first, and the same for ever."""

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.get("/openapi.json", self._openapi)]

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=_openapi(), content_type="application/json")


@cache
def _openapi() -> bytes:
    return dumps(openapi.document())
