"""Errors of the API, as RFC 9457 has them."""

from __future__ import annotations

from aiohttp import web

from service.http.access import Refusal
from service.wire.json import dumps


def problem(refused: Refusal) -> web.Response:
    """`application/problem+json`; a 401 says how to authenticate (RFC 6750, section 3)."""
    document = {"type": "about:blank", "title": refused.title, "status": refused.status, "detail": refused.detail}
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    return web.Response(
        status=refused.status, body=dumps(document), content_type="application/problem+json", headers=headers
    )
