"""A message from the bus, read and judged up to the model's own parameters: shape, types, ranges, names.

The order of the judgements is the contract's: first the id, because a known id is looked up before anything else is
judged; then the content hash, for any body that is JSON at all; then the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.domain.errors import ErrorCode
from service.domain.messages import (
    DEFAULT_MODEL,
    DEFAULT_PRIORITY,
    Identified,
    Message,
    NewRequest,
    Unidentified,
)
from service.domain.states import Fault, Request, RequestState
from service.wire.envelope import from_pydantic, invalid, read_document, read_request_id
from service.wire.json import canonical_bytes, dumps, pointer, unfit

MAX_METADATA_BYTES = 8 * 1024
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
NOT_PARAMETERS = ("model", "num_generations", "target_namespace", "response_format")
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
# A process of the broker's and a key, in base64. What does not begin as a process id does in Erlang's external format
# (131 and 88, or 103) makes RabbitMQ end the connection that answers, and all answers wait for the next one.
DIRECT_REPLY_TOKEN = re.compile(r"amq\.rabbitmq\.reply-to\.g(1h|2d)[A-Za-z0-9+/]+={0,2}\.[A-Za-z0-9+/=_-]+")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class RequestRules:
    """What the operator allows, and what stands in for what a request leaves out."""

    default_deadline_s: float = 86_400
    target_namespaces: frozenset[str] = frozenset()
    reply_to_pattern: re.Pattern[str] | None = None
    own_queues: frozenset[str] = frozenset()


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:  # the first and the last day of the calendar, with an offset
        raise ValueError("is beyond the calendar") from error


def _rfc_3339(value: object) -> object:
    if not isinstance(value, str) or not RFC_3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z")
    return value


Deadline = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_in_utc), Field(strict=False)]


class RequestBody(BaseModel):
    """The body of a `generation.request` message."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    request_id: str | None = Field(
        None,
        description="The idempotency key: the same id is never paid for twice. Else the AMQP `message_id` is it.",
    )
    model: str = Field(DEFAULT_MODEL, min_length=1, max_length=200, description="A model of the hub, by its id.")
    input: dict[str, Any] = Field(description="The model's parameters, judged by the model's own schema.")
    num_generations: int = Field(1, ge=1, le=4, description="How many outputs to make; each is paid for.")
    target_namespace: str | None = Field(
        None, min_length=1, max_length=200, description="Who is billed: one of DROVER_TARGET_NAMESPACES."
    )
    priority: int = Field(
        DEFAULT_PRIORITY, ge=0, le=9, description="Higher goes first among the requests of one source."
    )
    deadline: Deadline | None = Field(
        None, description="When the request expires (RFC 3339, with an offset); what runs then is cancelled at the hub."
    )
    metadata: dict[str, Any] | None = Field(
        None, description="Echoed in every event, never read. At most 8 KiB as compact JSON."
    )


def read_message(message: Message, rules: RequestRules, now: datetime) -> Identified | Unidentified:
    """Reads one delivery. Never raises: whatever is wrong comes back as a fault."""
    data, envelope, problem = read_document(message)
    trace = _trace(message, envelope)
    request_id = read_request_id(message, data)
    if isinstance(request_id, Fault):
        return Unidentified(problem or request_id, *trace)
    if data is None:
        return Identified(request_id, None, None, problem, *trace)
    content_hash = _content_hash(data)
    body = problem or _body(data)
    fault = body if isinstance(body, Fault) else _fault(message, body, rules)
    if isinstance(body, Fault) or fault is not None:
        return Identified(request_id, content_hash, None, fault, *trace)
    accepted = _new_request(message, trace, body, request_id, content_hash, rules, now)
    return Identified(request_id, content_hash, accepted, None, *trace)


def _content_hash(data: Mapping[str, Any]) -> bytes | None:
    """What idempotency compares, after defaults. None for content that has no canonical spelling."""
    content = {
        "model": data.get("model", DEFAULT_MODEL),
        "input": data.get("input"),
        "num_generations": data.get("num_generations", 1),
        "target_namespace": data.get("target_namespace"),
    }
    try:
        return hashlib.sha256(canonical_bytes(content)).digest()
    except (ValueError, TypeError):
        return None


def _body(data: Mapping[str, Any]) -> RequestBody | Fault:
    try:
        return RequestBody.model_validate(data)
    except ValidationError as error:
        return from_pydantic("The request is not valid.", error)


def _fault(message: Message, body: RequestBody, rules: RequestRules) -> Fault | None:
    """The first kind of fault found, with all of its details."""
    faults = [
        {
            "path": pointer(("input", name)),
            "message": "is not a parameter; it belongs beside `input`, or nowhere",
        }
        for name in NOT_PARAMETERS
        if name in body.input
    ]
    faults += [{"path": pointer(path), "message": text} for path, text in unfit(body.input, ("input",))]
    if faults:
        return Fault(ErrorCode.INVALID_INPUT, "The input cannot be passed on.", tuple(faults))
    details: list[dict[str, object]] = [
        {"path": pointer(path), "message": text} for path, text in unfit(body.model, ("model",))
    ]
    details += [*_metadata_faults(body), *_property_faults(message, rules)]
    if body.target_namespace is not None and body.target_namespace not in rules.target_namespaces:
        text = "is not one of the namespaces that this service may bill (DROVER_TARGET_NAMESPACES)"
        details.append({"path": "/target_namespace", "message": text})
    return invalid("The request is not valid.", details) if details else None


def _metadata_faults(body: RequestBody) -> list[dict[str, object]]:
    faults: list[dict[str, object]] = [
        {"path": pointer(path), "message": text} for path, text in unfit(body.metadata or {}, ("metadata",))
    ]
    if not faults and len(dumps(body.metadata)) > MAX_METADATA_BYTES:
        faults.append({"path": "/metadata", "message": f"is larger than {MAX_METADATA_BYTES} bytes"})
    return faults


def _property_faults(message: Message, rules: RequestRules) -> list[dict[str, object]]:
    faults: list[dict[str, object]] = [
        {"path": f"property {name}", "message": "must be text without NUL characters"} for name in message.unreadable
    ]
    refusal = reply_to_refusal(message.reply_to, rules)
    if refusal:
        faults.append({"path": "property reply_to", "message": refusal})
    return faults


def readable_trace(pattern: re.Pattern[str], value: object) -> str | None:
    """A trace header as it is, or None when it is not one (W3C Trace Context: a malformed header is ignored)."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _trace(message: Message, envelope: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """traceparent and tracestate of the headers, else of the envelope: a tracestate says nothing of another's trace."""
    if message.traceparent is not None:
        return message.traceparent, message.tracestate
    traceparent = readable_trace(TRACEPARENT, envelope.get("traceparent"))
    return traceparent, readable_trace(TRACESTATE, envelope.get("tracestate")) if traceparent else None


def reply_to_refusal(reply_to: str | None, rules: RequestRules) -> str | None:
    """Why an answer may not go to that queue; None when it may."""
    if reply_to is None:
        return None
    if reply_to.startswith(DIRECT_REPLY_TO) and not DIRECT_REPLY_TOKEN.fullmatch(reply_to):
        return "is not an address of direct reply-to as the broker gives it"
    if reply_to in rules.own_queues:
        return "must not be one of this service's own queues"
    if rules.reply_to_pattern and not rules.reply_to_pattern.fullmatch(reply_to):
        return "is not a name that this service may answer to (DROVER_REPLY_TO_PATTERN)"
    return None


def _new_request(
    message: Message,
    trace: tuple[str | None, str | None],
    body: RequestBody,
    request_id: str,
    content_hash: bytes | None,
    rules: RequestRules,
    now: datetime,
) -> NewRequest:
    seed = body.input.get("seed")
    request = Request(
        request_id=request_id,
        version=1,
        state=RequestState.ACCEPTED,
        sequence=1,
        source=message.source,
        model=body.model,
        num_generations=body.num_generations,
        received_at=now,
        target_namespace=body.target_namespace,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        metadata=None if body.metadata is None else dumps(body.metadata),
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        traceparent=trace[0],
        tracestate=trace[1],
    )
    deadline = body.deadline or now + timedelta(seconds=rules.default_deadline_s)
    # Content that passed every judgement always has a canonical spelling.
    return NewRequest(request, body.input, content_hash or b"", body.priority, deadline)
