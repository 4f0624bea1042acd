"""The sandbox's own endpoints under `/sandbox/`, without authorization: for tests to look and to meddle.

GET /sandbox/ledger         all there is to know: see `ledger_view`
GET /sandbox/count          posted, active, streams: cheap enough to ask often
GET, PUT /sandbox/faults    the set of faults; PUT replaces it as a whole
GET /sandbox/faults/schema  what faults there are: a JSON schema that explains each
POST /sandbox/streams/cut   cut every open stream; {"cut": n}
POST /sandbox/streams/tear  cut every open stream in the middle of the next event that anybody hears, or of that of
                            {"generation_id": id}; {"streams": n}, those open now
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from service.sandbox.acceptance import RequestRefusedError
from service.sandbox.answers import answer, failure
from service.sandbox.faults import FAULTS
from service.sandbox.hub import Hub

T = TypeVar("T")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Event:
    """The event of one generation; of any, without an id."""

    generation_id: str | None = None


_EVENT: Final = TypeAdapter(_Event)


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
            case "POST", "/sandbox/streams/tear":
                return self._tear(_read(_EVENT, await request.read() or b"{}"))
            case "GET", "/sandbox/faults":
                return answer(FAULTS.dump_python(self._hub.faults))
            case "PUT", "/sandbox/faults":
                self._hub.faults = _read(FAULTS, await request.read())
                return answer(FAULTS.dump_python(self._hub.faults))
            case "GET", "/sandbox/faults/schema":
                return answer(FAULTS.json_schema())
            case method, path:
                return failure(404, "resource_not_found", f"There is no {method} {path}")

    def _tear(self, event: _Event) -> web.Response:
        self._hub.broadcast.tear(event.generation_id)
        return answer({"streams": len(self._hub.broadcast)})


def _read(kind: TypeAdapter[T], body: bytes) -> T:
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise RequestRefusedError(failure(400, "invalid_params", str(error))) from error


def ledger_view(hub: Hub) -> dict[str, Any]:
    """Everything that has happened, for tests to judge. Times are Unix seconds.

    `calls` by endpoint, `seed` of the dice, `strikes` of each fault that has a probability, `streams` open now and
    `peak_streams` at once, `stream_log` (`opened_at`, `closed_at` or null), `posts` to the queue in order of their
    coming (see Post) and `generations` in order of their acceptance (see Generation.entry).
    """
    return {
        "calls": dict(hub.ledger.calls),
        "seed": hub.dice.seed,
        "strikes": dict(hub.ledger.strikes),
        "streams": len(hub.broadcast),
        "peak_streams": hub.broadcast.peak,
        "stream_log": [span.entry() for span in hub.broadcast.log],
        "posts": [post.entry() for post in hub.ledger.posts],
        "generations": [generation.entry() for generation in hub.ledger.generations.values()],
    }


def count_view(hub: Hub) -> dict[str, int]:
    """How many generations there have been, how many are active, and how many streams are open."""
    return {
        "posted": len(hub.ledger.generations),
        "active": len(hub.ledger.active),
        "streams": len(hub.broadcast),
    }
