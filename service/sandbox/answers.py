"""JSON answers, the two shapes in which the hub reports an error, and the pages that proxies put in its place.

orjson writes no blanks between keys and values. The shell samples of the hub's model pages rely on that: they look for
`"generation_id":"<id>"` in the text of an event.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from service.sandbox.faults import Faults

_JSON: Final = "application/json"

_TITLES: Final = {
    "unauthenticated": "Unauthenticated",
    "invalid_params": "Invalid parameters",
    "resource_not_found": "Resource not found",
    "unsupported_media_type": "Unsupported media type",
    "unknown_error": "Unknown error",
}

_KINDS: Final = {
    400: "invalid_params",
    401: "unauthenticated",
    404: "resource_not_found",
    415: "unsupported_media_type",
    422: "invalid_params",
}

_STATUSES: Final = frozenset(HTTPStatus)
_RETRIED_AFTER: Final = frozenset({429, 503})


def answer(payload: object, status: int = 200) -> web.Response:
    """Answer with `payload` as compact JSON."""
    return web.Response(body=orjson.dumps(payload), status=status, content_type=_JSON)


def failure(status: int, kind: str, detail: str) -> web.Response:
    """Answer in the long shape: `{"error":{"type","title","detail"},"status":"error","status_message":type}`."""
    error = {"type": kind, "title": _TITLES.get(kind, kind), "detail": detail}
    return answer({"error": error, "status": "error", "status_message": kind}, status)


def brief_failure(status: int, message: str) -> web.Response:
    """Answer in the short shape: `{"error":{"message"}}`."""
    return answer({"error": {"message": message}}, status)


def proxy_page(status: int) -> web.Response:
    """Answer as a proxy does that knows nothing of the hub: with a page."""
    title = f"{status} {HTTPStatus(status).phrase}" if status in _STATUSES else str(status)
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body><center><h1>{title}</h1></center></body>\r\n</html>"
    return web.Response(text=page, status=status, content_type="text/html")


def empty_list(kind: str, fault: str) -> web.Response:
    """Answer a POST that is refused with 200, an empty list and an error."""
    error = {"type": kind, "title": _TITLES[kind], "detail": _asked_for(fault)}
    return answer({"generations": [], "error": error})


def trouble(faults: Faults, status: int, fault: str) -> web.Response:
    """Answer with the error `status` that a fault causes, looking as the set of faults wants errors to look."""
    kind = _KINDS.get(status, "unknown_error")
    response = proxy_page(status) if faults.html_bodies else failure(status, kind, _asked_for(fault))
    if faults.retry_after is not None and status in _RETRIED_AFTER:
        response.headers["Retry-After"] = faults.retry_after
    return response


def _asked_for(fault: str) -> str:
    return f"A fault was asked of the sandbox: {fault}"
