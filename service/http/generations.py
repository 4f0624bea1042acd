"""`/v1/generations`: what a caller without AMQP may do. Requests and cancels go over the bus like everybody's."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from aiohttp import web

from service.domain.errors import DatabaseUnavailableError, ErrorCode
from service.domain.states import EventName, Fault, RequestState
from service.domain.stored import StoredEvent, StoredRequest
from service.http import calls
from service.http.access import Refusal
from service.http.problems import RefusedError, refusal_of
from service.wire.events import read_fault
from service.wire.generations import generation
from service.wire.json import dumps
from service.workers.admission import Admission
from service.workers.feed import Feed, LaggingError

PATH = "/v1/generations"
DEFAULT_PAGE, LONGEST_PAGE = 50, 200
LAST_ARRIVAL = 10**18 - 1
UNTOLD = Fault(ErrorCode.INTERNAL, "The request was not accepted.")


class Reader(Protocol):
    """Requests as they stand (see `postgres/reader.py`). DatabaseUnavailableError."""

    async def find(self, request_id: str) -> StoredRequest | None: ...
    async def events(self, request_id: str) -> Sequence[StoredEvent]: ...
    async def page(
        self, limit: int, *, states: Collection[RequestState] = (), before: int | None = None
    ) -> Sequence[StoredRequest]: ...


class Generations:
    """Routes under `/v1/generations`."""

    def __init__(self, reader: Reader, feed: Feed, admission: Admission) -> None:
        self._reader = reader
        self._feed = feed
        self._admission = admission

    def routes(self) -> list[web.RouteDef]:
        """What the server is to answer."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._post),
            web.get(PATH + "/{request_id}", self._get),
            web.delete(PATH + "/{request_id}", self._delete),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """A page, the newest first; `next_cursor` is null on the last one."""
        calls.only(request, ("status", "limit", "cursor"))
        limit = calls.whole_number(request, "limit", 1, LONGEST_PAGE) or DEFAULT_PAGE
        before = calls.whole_number(request, "cursor", 1, LAST_ARRIVAL)
        found = await self._reader.page(limit + 1, states=_states(request), before=before)
        cursor = str(found[limit - 1].arrival) if len(found) > limit else None
        document = {"generations": [generation(item) for item in found[:limit]], "next_cursor": cursor}
        return _json(200, document)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        calls.only(request, ())
        return _json(200, generation(await self._find(calls.request_id(request.match_info["request_id"]))))

    async def _find(self, request_id: str) -> StoredRequest:
        found = await self._reader.find(request_id)
        if found is not None:
            return found
        faults = [event.fault for event in await self._reader.events(request_id) if event.fault is not None]
        if faults:
            told = f"A message with this id was not accepted: {faults[-1].message}"
            raise RefusedError(Refusal(404, "Not accepted", told, faults[-1].code.value, faults[-1].details))
        raise calls.refuse(
            404,
            "Not known",
            "No request of this id is stored: it was never sent, is still on the bus, is in quarantine, or is past its "
            "retention.",
        )

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """202 when it is on the bus; with `wait`, 200 when it has ended in that time."""
        calls.only(request, ("wait",))
        wait = calls.seconds(request, "wait")
        admitted = await self._admission.admit(await calls.message(request))
        if isinstance(admitted, Fault):
            raise RefusedError(refusal_of(admitted))
        ended, found = await self._waited_for(admitted.request_id, wait) if wait else (False, None)
        document = generation(found) if found else {"request_id": admitted.request_id, "status": "pending"}
        answer = _json(200 if ended and found else 202, document)
        answer.headers["Location"] = f"{PATH}/{admitted.request_id}"
        return answer

    async def _waited_for(self, request_id: str, wait: float) -> tuple[bool, StoredRequest | None]:
        """Whether it ended in time, and how it stands. The message is on the bus whatever becomes of the database."""
        try:
            return await self._end_of(request_id, wait), await self._reader.find(request_id)
        except DatabaseUnavailableError:
            return False, None

    async def _end_of(self, request_id: str, wait: float) -> bool:
        """Whether it ended in time. RefusedError when intake did not accept it after all."""
        deadline = asyncio.get_running_loop().time() + wait
        async with await self._feed.follow(request_id, answers=False) as follower:
            while (left := deadline - asyncio.get_running_loop().time()) > 0 and not follower.over:
                try:
                    told = await follower.next(left)
                except LaggingError:
                    return False
                for item in told:
                    if item.event.name == EventName.REJECTED:
                        raise RefusedError(refusal_of(read_fault(item.event.body) or UNTOLD))
                    if EventName(item.event.name).terminal:
                        return True
        return False

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """202: the request ends when it can; for an id that is not known yet, when it comes (within 24 hours)."""
        calls.only(request, ())
        request_id = calls.request_id(request.match_info["request_id"])
        await self._admission.cancel(request_id)
        return _json(202, {"request_id": request_id, "status": "pending"})


def _states(request: web.Request) -> Collection[RequestState]:
    given = request.query.get("status")
    if given is None:
        return ()
    try:
        return {RequestState(given)}
    except ValueError:
        known = ", ".join(RequestState)
        raise calls.refuse(422, "Unknown status", f"status is one of: {known}.") from None


def _json(status: int, document: object) -> web.Response:
    return web.Response(status=status, body=dumps(document), content_type="application/json")
