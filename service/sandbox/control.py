"""The sandbox's own endpoints under `/sandbox/`, without authorization: for tests to look and to meddle.

GET /sandbox/ledger         all there is to know: see `ledger_view`
GET /sandbox/count          posted, active, streams: cheap enough to ask often
GET, PUT /sandbox/faults    the set of faults; PUT replaces it as a whole
GET /sandbox/faults/schema  what faults there are: a JSON schema that explains each
POST /sandbox/streams/cut   cut every open stream; {"cut": n}
POST /sandbox/streams/tear  cut every open stream in the middle of the next event that anybody hears, or of that of
                            {"generation_id": id}; {"streams": n}, those open now
POST /sandbox/generations/cancel  end generations as somebody else would at the hub, without an event
POST /sandbox/generations/forget  lose generations: 404, in no list, no event; in the ledger they are `forgotten`
                            both of {"generation_ids": [...]}, or of the {"count": n} oldest active ones; the answer
                            tells the {"generation_ids": [...]} to which it happened
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

from aiohttp import web
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from service.sandbox.acceptance import RequestRefusedError
from service.sandbox.answers import answer, failure
from service.sandbox.faults import FAULTS
from service.sandbox.generation import Generation
from service.sandbox.hub import Hub

T = TypeVar("T")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Event:
    """The event of one generation; of any, without an id."""

    generation_id: str | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Selection:
    """Generations by their ids, or so many of the oldest active ones."""

    generation_ids: tuple[str, ...] | None = None
    count: Annotated[int, Field(ge=0)] | None = None

    def __post_init__(self) -> None:
        if (self.generation_ids is None) == (self.count is None):
            raise ValueError("either generation_ids or count")


_EVENT: Final = TypeAdapter(_Event)
_SELECTION: Final = TypeAdapter(_Selection)


class Control:
    """Answers requests under `/sandbox/`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._answers: dict[tuple[str, str], Callable[[bytes], object]] = {
            ("GET", "/sandbox/ledger"): lambda _: ledger_view(hub),
            ("GET", "/sandbox/count"): lambda _: count_view(hub),
            ("GET", "/sandbox/faults"): lambda _: FAULTS.dump_python(hub.faults),
            ("PUT", "/sandbox/faults"): self._replace_faults,
            ("GET", "/sandbox/faults/schema"): lambda _: FAULTS.json_schema(),
            ("POST", "/sandbox/streams/cut"): lambda _: {"cut": hub.broadcast.cut()},
            ("POST", "/sandbox/streams/tear"): self._tear,
            ("POST", "/sandbox/generations/cancel"): partial(self._meddle, hub.cancel),
            ("POST", "/sandbox/generations/forget"): partial(self._meddle, hub.ledger.forget),
        }

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        find = self._answers.get((request.method, request.path))
        if find is None:
            return failure(404, "resource_not_found", f"There is no {request.method} {request.path}")
        return answer(find(await request.read()))

    def _replace_faults(self, body: bytes) -> object:
        self._hub.faults = _read(FAULTS, body)
        return FAULTS.dump_python(self._hub.faults)

    def _tear(self, body: bytes) -> object:
        self._hub.broadcast.tear(_read(_EVENT, body or b"{}").generation_id)
        return {"streams": len(self._hub.broadcast)}

    def _meddle(self, meddle: Callable[[Generation], bool], body: bytes) -> object:
        """Do it to those generations of a selection to which it can be done."""
        selection = _read(_SELECTION, body)
        ledger = self._hub.ledger
        if selection.generation_ids is None:
            chosen = list(islice(ledger.active.values(), selection.count))
        else:
            unknown = [id_ for id_ in selection.generation_ids if id_ not in ledger.generations]
            if unknown:
                raise RequestRefusedError(failure(404, "resource_not_found", f"There is no generation {unknown[0]}"))
            chosen = [ledger.generations[id_] for id_ in selection.generation_ids]
        return {"generation_ids": [generation.id for generation in chosen if meddle(generation)]}


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
