"""JSON answers, and the two shapes in which the hub reports an error.

orjson writes no blanks between keys and values. The shell samples of the hub's model pages rely on that: they look for
`"generation_id":"<id>"` in the text of an event.
"""

from __future__ import annotations

from typing import Final

import orjson
from aiohttp import web

_JSON: Final = "application/json"

_TITLES: Final = {
    "unauthenticated": "Unauthenticated",
    "invalid_params": "Invalid parameters",
    "resource_not_found": "Resource not found",
    "unsupported_media_type": "Unsupported media type",
    "unknown_error": "Unknown error",
}


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
