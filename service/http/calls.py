"""What handlers read out of a call: checked against what they take, and refused with what to send instead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection

from aiohttp import web

from service.domain.messages import Message
from service.http.access import Refusal
from service.http.problems import RefusedError
from service.wire.envelope import CLOUDEVENTS_JSON, REQUEST_ID
from service.wire.requests import TRACEPARENT, TRACESTATE, readable_trace
from service.workers.admission import SOURCE

BODY_TIMEOUT_S = 10.0
JSON_TYPES = frozenset({"application/json", CLOUDEVENTS_JSON})
LONGEST_WAIT_S = 60
NUMBER = re.compile(r"\d{1,18}", re.ASCII)
SECONDS = re.compile(r"\d{1,4}(\.\d{1,3})?", re.ASCII)


def refuse(status: int, title: str, detail: str) -> RefusedError:
    """To be raised."""
    return RefusedError(Refusal(status, title, detail))


def only(request: web.Request, names: Collection[str]) -> None:
    """Refuses query parameters that nothing reads: a misspelt filter would answer with everything."""
    for name in request.query:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise refuse(422, "Unknown parameter", f"A query parameter is not known here; known are: {known}.")
    for name in names:
        if len(request.query.getall(name, ())) > 1:
            raise refuse(422, "Given twice", f"The query parameter {name} is given more than once.")


def whole_number(request: web.Request, name: str, least: int, most: int) -> int | None:
    """A query parameter; None when it is not given."""
    text = request.query.get(name)
    if text is None:
        return None
    if not NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise refuse(422, f"Not a {name}", f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def seconds(request: web.Request, name: str) -> float:
    """A query parameter of at most a minute; 0 when it is not given."""
    text = request.query.get(name, "0")
    if not SECONDS.fullmatch(text) or float(text) > LONGEST_WAIT_S:
        raise refuse(422, f"Not a {name}", f"{name} must be a number of seconds from 0 to {LONGEST_WAIT_S}.")
    return float(text)


def request_id(text: str) -> str:
    """As it stands in a path or a query."""
    if not REQUEST_ID.fullmatch(text):
        raise refuse(422, "No request id", "A request id is 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
    return text


async def message(request: web.Request) -> Message:
    """The body, as if it had come over the bus; `Idempotency-Key` stands for the property `message_id`."""
    if request.content_type not in JSON_TYPES:
        raise refuse(415, "Not JSON", "Send it as application/json, or as application/cloudevents+json.")
    key = request.headers.get("Idempotency-Key")
    return Message(
        await _body(request),
        content_type=request.content_type,
        message_id=None if key is None else request_id(_bare(key)),
        source=SOURCE,
        traceparent=readable_trace(TRACEPARENT, request.headers.get("traceparent")),
        tracestate=readable_trace(TRACESTATE, request.headers.get("tracestate")),
    )


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise refuse(408, "Too slow", f"The body did not come within {BODY_TIMEOUT_S:g} s.") from None


def _bare(key: str) -> str:
    """The draft of the header wants a quoted string; most send it bare."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
