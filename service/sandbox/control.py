"""The sandbox's own endpoints under `/sandbox/`, without authorization: for tests to look and to meddle.

GET /sandbox/ledger        calls, streams, peak_streams, and every generation
GET /sandbox/count         posted, active, streams: cheap enough to ask often
POST /sandbox/streams/cut  cut every open stream; {"cut": n}
GET, PUT /sandbox/faults   the set of faults; PUT replaces it as a whole
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from service.sandbox.answers import answer, failure
from service.sandbox.faults import FAULTS
from service.sandbox.hub import Hub


class Control:
    """Answers requests under `/sandbox/`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/sandbox/ledger":
                return answer(ledger_view(self._hub))
            case "GET", "/sandbox/count":
                return answer(count_view(self._hub))
            case "POST", "/sandbox/streams/cut":
                return answer({"cut": self._hub.broadcast.cut()})
            case "GET", "/sandbox/faults":
                return answer(FAULTS.dump_python(self._hub.faults))
            case "PUT", "/sandbox/faults":
                return self._put_faults(await request.read())
            case method, path:
                return failure(404, "resource_not_found", f"There is no {method} {path}")

    def _put_faults(self, body: bytes) -> web.Response:
        try:
            self._hub.faults = FAULTS.validate_json(body)
        except ValidationError as error:
            return failure(400, "invalid_params", str(error))
        return answer(FAULTS.dump_python(self._hub.faults))


def ledger_view(hub: Hub) -> dict[str, Any]:
    """Everything that has happened, for tests to judge."""
    return {
        "calls": dict(hub.ledger.calls),
        "streams": len(hub.broadcast),
        "peak_streams": hub.broadcast.peak,
        "generations": [generation.entry() for generation in hub.ledger.generations.values()],
    }


def count_view(hub: Hub) -> dict[str, int]:
    """How many generations there have been, how many are active, and how many streams are open."""
    return {
        "posted": len(hub.ledger.generations),
        "active": len(hub.ledger.active),
        "streams": len(hub.broadcast),
    }
