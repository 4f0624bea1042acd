"""The queue's endpoints, and the faults that strike them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from service.sandbox.acceptance import RequestRefusedError, accept, read_body
from service.sandbox.answers import answer, empty_list, failure, proxy_page, trouble
from service.sandbox.generation import Generation
from service.sandbox.hub import Hub
from service.sandbox.posts import ANSWERED, FAILED_LATE, GONE, HUNG, LOST, REFUSED, Post

QUEUE: Final = "/api/ai/queue"

# One fault at most strikes a POST before it is accepted, and one afterwards: the first that falls, in this order.
_BEFORE: Final = ("posts_hung", "posts_limited", "posts_failed", "posts_empty")
_AFTER: Final = ("answers_lost", "answers_hung", "posts_failed_late")


class Queue:
    """Answers requests to the queue."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def enqueue(self, request: web.BaseRequest) -> web.Response:
        """POST: accept a request or not; the ledger tells which, and what its client was told."""
        post = self._hub.ledger.enter_post()
        try:
            body = await read_body(request)
            post.prompt = body.get("prompt")
            return await self._turn_away(request, post) or await self._take(request, post, body)
        except RequestRefusedError as refusal:
            post.end(REFUSED, refusal.response.status)
            raise
        finally:
            post.end(GONE)  # whose client has gone is cancelled; all others have had their end

    async def list(self, request: web.BaseRequest) -> web.Response:
        """GET: what passes the filters of the query, the active ones unless a status is asked for."""
        hub, faults = self._hub, self._hub.faults
        hub.ledger.calls["list"] += 1
        if faults.list_status is not None:
            return trouble(faults, faults.list_status, "list_status")
        found = hub.ledger.find(request.query)
        shown = found if faults.list_limit is None else found[: faults.list_limit]
        count = len(shown if faults.list_limit_hidden else found)
        return answer({"count": count, "generations": [hub.view(generation) for generation in shown]})

    async def get(self, request: web.BaseRequest) -> web.Response:
        """GET of one generation."""
        hub, faults = self._hub, self._hub.faults
        hub.ledger.calls["get"] += 1
        if faults.get_status is not None:
            return trouble(faults, faults.get_status, "get_status")
        return answer(hub.view(self._named(request)))

    async def delete(self, request: web.BaseRequest) -> web.Response:
        """DELETE: cancel an active generation; no effect on one that has ended."""
        hub, faults = self._hub, self._hub.faults
        hub.ledger.calls["delete"] += 1
        if faults.delete_status is not None:
            return trouble(faults, faults.delete_status, "delete_status")
        generation = self._named(request)
        if not hub.strikes("deletes_ignored"):
            hub.cancel(generation)
        return answer({"status": "success", "generation_id": generation.id})

    def _named(self, request: web.BaseRequest) -> Generation:
        generation = self._hub.ledger.shown(request.path[len(QUEUE) + 1 :])
        if generation is None:
            raise RequestRefusedError(failure(404, "resource_not_found", "There is no such generation"))
        return generation

    async def _turn_away(self, request: web.BaseRequest, post: Post) -> web.Response | None:
        """The faults of a POST that is not accepted."""
        faults = self._hub.faults
        fault = "post_status" if faults.post_status is not None else self._hub.struck_by(_BEFORE)
        if fault is None:
            return None
        post.fault = fault
        if fault == "posts_hung":
            post.end(HUNG)
            return await self._no_answer(request)
        if fault == "posts_limited":
            response = trouble(faults, 429, fault)
        elif fault == "posts_failed":
            response = proxy_page(502)
        elif fault == "posts_empty":
            response = empty_list(faults.posts_empty_type, fault)
        else:
            response = trouble(faults, faults.post_status or 500, fault)
        post.end(REFUSED, response.status)
        return response

    async def _take(self, request: web.BaseRequest, post: Post, body: dict[str, Any]) -> web.Response:
        """Accept a POST, and the faults that come after."""
        hub, faults = self._hub, self._hub.faults
        early = hub.strikes("events_early")
        generations = accept(hub, body, at_once=early)
        post.generation_ids = tuple([generation.id for generation in generations])
        # Written before time passes below: an accepted generation is answered as queued.
        response = answer({"generations": [{"generation_id": id_, "status": "queued"} for id_ in post.generation_ids]})
        fault = hub.struck_by(_AFTER)
        post.fault = fault or ("events_early" if early else None)
        if early:
            await asyncio.gather(*(hub.wait(generation) for generation in generations if not generation.never_ending))
            await asyncio.sleep(faults.events_early_by_s)
        if faults.answer_delay_s:
            await asyncio.sleep(faults.answer_delay_s)
        match fault:
            case "answers_lost":
                post.end(LOST)
                _cut(request)
            case "answers_hung":
                post.end(HUNG)
                return await self._no_answer(request)
            case "posts_failed_late":
                response = proxy_page(502)
                post.end(FAILED_LATE, response.status)
            case _:
                post.end(ANSWERED, response.status)
        return response

    async def _no_answer(self, request: web.BaseRequest) -> web.Response:
        """Say nothing for as long as faults last; what is returned then finds no connection any more."""
        await self._hub.until_faults_are_replaced()
        _cut(request)
        return proxy_page(504)


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
