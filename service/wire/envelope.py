"""What every message from the bus has in common: a JSON object of bounded size, bare or in a CloudEvents envelope, and
an id that can be used as a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.domain.errors import ErrorCode
from service.domain.messages import Message
from service.domain.states import Fault
from service.wire.json import loads, pointer

MAX_BODY_BYTES = 256 * 1024
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLOUDEVENTS_JSON = "application/cloudevents+json"


class CloudEvent(BaseModel):
    """The structured-mode envelope, CloudEvents 1.0 section 3.1; extension attributes are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")

    specversion: str = Field(pattern=r"^1\.0$", description="The version of CloudEvents.")
    id: str = Field(min_length=1, description="The envelope's own; it names no request.")
    source: str = Field(min_length=1, description="Who sends; said for others, and not read here.")
    type: str = Field(min_length=1, description="Whatever the sender calls it; the routing key decides what it is.")
    data: dict[str, Any]
    datacontenttype: str | None = Field(
        None, pattern=r"^application/([a-z0-9.-]+\+)?json\s*(;.*)?$", description="JSON, if it is given."
    )
    traceparent: str | None = Field(None, description="W3C Trace Context; the header of the message goes first.")
    tracestate: str | None = Field(None, description="W3C Trace Context; the header of the message goes first.")


def read_document(message: Message) -> tuple[dict[str, Any] | None, Mapping[str, Any], Fault | None]:
    """The request's JSON object, the envelope around it (or an empty one), and what is wrong with either."""
    if len(message.body) > MAX_BODY_BYTES:
        return (
            None,
            {},
            invalid(f"The body has {len(message.body)} bytes; at most {MAX_BODY_BYTES} are taken."),
        )
    try:
        document = loads(message.body)
    except ValueError as error:
        return None, {}, invalid(f"The body is not JSON: {error}.")
    if not isinstance(document, dict):
        return None, {}, invalid("The body must be a JSON object.")
    wrapped = (message.content_type or "").lower().startswith(CLOUDEVENTS_JSON) or "specversion" in document
    if not wrapped:
        return document, {}, None
    data = document.get("data")
    try:
        CloudEvent.model_validate(document)
    except ValidationError as error:
        fault = from_pydantic("The CloudEvents envelope is not valid.", error)
        return (data if isinstance(data, dict) else None), document, fault
    return document["data"], document, None


def read_request_id(message: Message, data: Mapping[str, Any] | None) -> str | Fault:
    """The idempotency key: of the body, else the property `message_id`."""
    given = data.get("request_id") if data else None
    if given is None:
        given = message.message_id
    if given is None:
        return invalid("Neither request_id nor the property message_id (over HTTP: Idempotency-Key) is given.")
    if not isinstance(given, str) or not REQUEST_ID.fullmatch(given):
        return invalid("The request id must be 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
    return given


def invalid(text: str, details: list[dict[str, object]] | None = None) -> Fault:
    """The fault of a message that is not one."""
    return Fault(ErrorCode.INVALID_MESSAGE, text, tuple(details or ()))


def from_pydantic(text: str, error: ValidationError) -> Fault:
    """Pydantic's findings as details; never with the values, which may be prompts."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    details = [{"path": pointer(item["loc"]), "message": item["msg"].removeprefix("Value error, ")} for item in found]
    return Fault(ErrorCode.INVALID_MESSAGE, text, tuple(details[:50]))
