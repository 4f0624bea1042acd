"""The hub's answers, read tolerantly and judged strictly. Pure: bytes in, domain values out.

Shapes and their variants: the hub's API reference (async queue, events, errors) and what has been seen in the wild.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeGuard

import orjson

from service.domain.errors import ErrorCode
from service.domain.facts import (
    HubAccepted,
    HubRefused,
    NotSent,
    OutcomeUnknown,
    OutputReported,
    SubmitOutcome,
)
from service.domain.gate import MOST_WAIT_S, Healthy, Held, Limited, Reason, Signal, Unclear
from service.domain.matching import Sighting
from service.domain.states import Fault, OutputStatus
from service.domain.upstream import ModelDescription, ModelOffer

REFUSALS = (400, 404, 415, 422)
HELD = (401, 402, 403)
HOLDS = {401: Reason.UNAUTHENTICATED, 402: Reason.UNPAID, 403: Reason.FORBIDDEN, 404: Reason.FOREIGN}
HOLD_S = 15.0
MAX_ID_CHARS = 200
MAX_TOLD_CHARS = 4000  # of an error: it goes into events, the database and every answer about the request
SHORTEST_KEY = 8  # characters; what is shorter is no secret, and may be a word of the answer itself
MILLISECONDS = 1e11  # as seconds, that is the year 5138
NO_WAIT_TOLD = timedelta(seconds=1)
URL_PATHS = (("result_url",), ("url",), ("videos", 0, "url"), ("video", "url"), ("images", 0, "url"), ("result", "url"))


def without_key(body: bytes, api_key: str) -> bytes:
    """A hub, or a proxy before it, may quote the key in an error, and that goes out in an event."""
    if len(api_key) < SHORTEST_KEY:
        return body
    body = body.replace(api_key.encode(), b"***")
    return _escaped(api_key).sub(b"***", body) if b"\\" in body else body


@lru_cache(maxsize=4)
def _escaped(api_key: str) -> re.Pattern[bytes]:
    r"""The key, each character as it is or as JSON may have it: some encoders write `\/`, or `\u002b` for a plus (RFC
    8259, section 7)."""
    short = {each: rf"\\?{re.escape(each)}" if each in '"\\/' else re.escape(each) for each in api_key}
    return re.compile("".join(rf"(?:{short[each]}|\\u(?i:{ord(each):04x}))" for each in api_key).encode())


def read_json(body: bytes) -> object:
    """The document, or None for a body that is not JSON (a proxy's page)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def read_error(document: object) -> tuple[str | None, str] | None:
    """(type, text) of either of the hub's two error shapes; None when it is neither."""
    error = document.get("error") if isinstance(document, Mapping) else None
    if not isinstance(error, Mapping):
        return None
    kind = error.get("type")
    told = [error[key] for key in ("title", "detail", "message") if isinstance(error.get(key), str) and error[key]]
    text = ": ".join(dict.fromkeys(told)) or (kind if isinstance(kind, str) else "")
    if not text:
        return None
    return (kind[:MAX_ID_CHARS] if isinstance(kind, str) else None), text[:MAX_TOLD_CHARS]


def read_submit(status: int, body: bytes, retry_after: str | None, now: datetime) -> SubmitOutcome:
    """What the answer to the POST means. Whatever is not surely a refusal or an acceptance is unknown."""
    if status == 429:
        wait = _retry_after(retry_after, now)
        return NotSent("the hub asks for fewer requests (429)", now + (NO_WAIT_TOLD if wait is None else wait))
    document = read_json(body)
    error = read_error(document)
    if status in HELD:
        return _held(status, now)
    if status in REFUSALS:
        if error is not None:
            return _refused(error)
        if status == 404:  # not in the hub's shape: somebody else answers at this address
            return _held(status, now)
    if 200 <= status < 300:
        ids = _generation_ids(document)
        if ids:
            return HubAccepted(ids)
        if error is not None:
            return _held(401, now) if error[0] == "unauthenticated" else _refused(error)
        return OutcomeUnknown(f"the hub answered {status} without generation ids")
    return OutcomeUnknown(f"the hub answered {status}")


def read_signal(status: int, outcome: SubmitOutcome, retry_after: str | None, now: datetime) -> Signal:
    """What the same answer says of the hub, whoever asked."""
    match outcome:
        case HubAccepted() | HubRefused():
            return Healthy()
        case OutcomeUnknown():
            return Unclear(_seconds(_retry_after(retry_after, now)))
        case NotSent() if status == 429:
            return Limited(_seconds(_retry_after(retry_after, now)))
        case NotSent():
            return Held(HOLDS.get(status, Reason.UNAUTHENTICATED))  # in a 200, only that one is told


def _seconds(wait: timedelta | None) -> float | None:
    return None if wait is None else wait.total_seconds()


def _generation_ids(document: object) -> tuple[str, ...]:
    listed = document.get("generations") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        return ()
    ids = (item.get("generation_id") for item in listed if isinstance(item, Mapping))
    return tuple(dict.fromkeys(item for item in ids if _usable_id(item)))  # each once: an id is a key


def _usable_id(value: object) -> TypeGuard[str]:
    # Printable: neither a NUL nor half a surrogate pair, which cannot be stored.
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS and value.isprintable()


def _refused(error: tuple[str | None, str]) -> HubRefused:
    kind, text = error
    details = ({"type": kind},) if kind else ()
    return HubRefused(Fault(ErrorCode.UPSTREAM_REJECTED, f"The hub refused the request: {text}", details))


def _held(status: int, now: datetime) -> NotSent:
    """Not the request's fault: it waits until somebody has mended the key, the account or the address."""
    return NotSent(f"{HOLDS[status].remedy} ({status})", now + timedelta(seconds=HOLD_S))


def _retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Retry-After as seconds or as a date (RFC 9110, section 10.2.3); None when there is none, or rubbish."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdecimal() else _seconds_until(value, now)
    except (ValueError, OverflowError):  # rubbish, or a date with an offset of centuries
        return None
    return timedelta(seconds=min(max(seconds, 0.0), MOST_WAIT_S))


def _seconds_until(date: str, now: datetime) -> float:
    """An HTTP date; one without a zone (asctime's form) is in UTC too."""
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC) - now).total_seconds()


def read_generation(document: object) -> OutputReported | None:
    """One generation, from a GET, a list or an event; None when it has no id or no status that is known."""
    if not isinstance(document, Mapping):
        return None
    generation_id = document.get("generation_id")
    told = document.get("status")
    try:
        status = OutputStatus(told if isinstance(told, str) else "")
    except ValueError:
        return None
    if not _usable_id(generation_id):
        return None
    return OutputReported(
        generation_id=generation_id,
        status=status,
        media_type=(_text(document.get("media_type")) or "")[:MAX_ID_CHARS] or None,
        url=_url(document) if status is OutputStatus.SUCCEEDED else None,
        error=_error_text(document) if status.ended and status is not OutputStatus.SUCCEEDED else None,
    )


def _text(value: object) -> str | None:
    return value.replace("\x00", "") if isinstance(value, str) else None


def _url(document: Mapping[str, Any]) -> str | None:
    for path in URL_PATHS:
        found: Any = document
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                found = None
                break
        if isinstance(found, str) and found:
            return _text(found)
    return None


def _error_text(document: Mapping[str, Any]) -> str | None:
    for key in ("error_message", "error"):
        told = document.get(key)
        if isinstance(told, str) and told:
            return _text(told[:MAX_TOLD_CHARS])
        if isinstance(told, Mapping) and (error := read_error({"error": told})) is not None:
            return _text(error[1])
    return None


def read_sighting(item: object) -> Sighting | None:
    """A generation of a list with what it was asked for; None when it does not say which, or of what model."""
    if not isinstance(item, Mapping) or not _usable_id(item.get("generation_id")):
        return None
    model = item.get("model_name") or item.get("model")
    if not isinstance(model, str):
        return None
    return Sighting(item["generation_id"], model, item, _moment(item.get("enqueued_at")))


def _moment(value: object) -> datetime | None:
    """Unix seconds, or milliseconds, as seen in the wild."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS else value, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def read_model(document: object, model: str) -> ModelDescription | None:
    """A model object; None when it is none. The schema goes by two names."""
    if not isinstance(document, Mapping) or not isinstance(document.get("id"), str):
        return None
    schema = document.get("json_request_schema") or document.get("request_schema")
    capabilities = document.get("capabilities")
    outputs = capabilities.get("output") if isinstance(capabilities, Mapping) else None
    return ModelDescription(
        model,
        tuple(item for item in outputs if isinstance(item, str)) if isinstance(outputs, list) else (),
        schema if isinstance(schema, Mapping | bool) else None,
        pricing if isinstance(pricing := document.get("pricing"), Mapping) else None,
    )


def read_models(document: object) -> list[ModelOffer] | None:
    """The list of models, each that can be read; None when it is none."""
    items = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(items, list):
        return None
    return [_offer(item) for item in items if isinstance(item, Mapping) and isinstance(item.get("id"), str)]


def _offer(item: Mapping[str, Any]) -> ModelOffer:
    described = read_model(item, item["id"])
    name, told = item.get("display_name"), item.get("description")
    return ModelOffer(
        item["id"],
        name if isinstance(name, str) else None,
        told if isinstance(told, str) else None,
        described.outputs if described else (),
        described.pricing if described else None,
        described.schema if described else None,
    )
