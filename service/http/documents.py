"""What is for all to read: `/openapi.json`, and `/docs`, the contract as a page."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from service.contracts.style import style_source
from service.wire.json import dumps

PAGE_POLICY = (
    f"default-src 'none'; style-src {style_source()}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Documents:
    """The routes. Each document is made when it is asked for first, and then kept; so is what makes it, which takes
    2 MiB that most replicas never need."""

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.get("/openapi.json", self._openapi), web.get("/docs", self._docs)]

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=_openapi(), content_type="application/json")

    async def _docs(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=_docs(), content_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


@cache
def _openapi() -> bytes:
    from service.contracts import openapi  # noqa: PLC0415

    return dumps(openapi.document())


@cache
def _docs() -> str:
    from service.contracts import asyncapi, openapi  # noqa: PLC0415
    from service.contracts.page import render_documentation  # noqa: PLC0415

    return render_documentation(asyncapi.document(), openapi.document())
