"""`GET /v1/events`: the published events as server-sent events (WHATWG HTML, section 9.2), to many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from aiohttp import web

from service.domain.errors import TransientError
from service.domain.feed import Place, read_place
from service.http import calls
from service.workers.feed import Feed, Follower, LaggingError, Told

log = structlog.get_logger(__name__)
PATH = "/v1/events"
KEEP_ALIVE_S = 15.0
WRITE_TIMEOUT_S = 10.0  # for what the network takes nothing of: then the client is gone, or too slow
RETRY_MS = 1000
MOST_FOLLOWERS = 5000
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Events:
    """The route. A client that is too slow is cut off; with its `Last-Event-ID` it goes on where it was."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._open = 0

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [web.get(PATH, self._stream, allow_head=False)]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        calls.only(request, ("request_id",))
        given = request.query.get("request_id")
        request_id = None if given is None else calls.request_id(given)
        place = _place(request)
        if self._open >= MOST_FOLLOWERS:
            raise calls.refuse(503, "Too many", f"{MOST_FOLLOWERS} clients follow this replica; try again, or another.")
        self._open += 1
        try:
            async with await self._feed.follow(request_id, place) as follower:
                return await _tell(request, follower)
        finally:
            self._open -= 1


async def _tell(request: web.Request, follower: Follower) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    text = f"retry: {RETRY_MS}\n\n".encode()
    try:
        while True:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.write(text)
            if follower.over:
                break
            told = await follower.next(KEEP_ALIVE_S)
            text = _frames(told) if told else b": keep-alive\n\n"
    except (TransientError, TimeoutError) as error:
        slow = isinstance(error, LaggingError | TimeoutError)
        log.info("feed.cut", reason="too slow" if slow else str(error), request_id=follower.request_id)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:  # it has gone
        pass
    return response


def _frames(told: Sequence[Told]) -> bytes:
    return b"".join(
        b"id: %b\nevent: %b\ndata: %b\n\n" % (item.resume.encode(), item.event.name.encode(), item.event.body)
        for item in told
    )


def _place(request: web.Request) -> Place | None:
    given = request.headers.get("Last-Event-ID")
    if not given:
        return None
    place = read_place(given)
    if place is None:
        raise calls.refuse(422, "No event id", "Last-Event-ID must be the id of an event of this stream.")
    return place
