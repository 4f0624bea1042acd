"""Events as they stand on the bus: CloudEvents 1.0, structured JSON (the contract's section on events)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID, uuid5

import orjson
from uuid_utils import uuid7

from service.domain.decisions import Emission
from service.domain.errors import ErrorCode
from service.domain.lifecycle import data_status
from service.domain.messages import Message, OutboxEvent
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState
from service.wire.json import dumps

REJECTIONS = UUID("6f0f5bb2-6d1b-5c0e-8f6f-3f3cf7c3a0d1")  # the namespace of rejection ids (RFC 9562, section 5.5)


def encode_emissions(emissions: Iterable[Emission], now: datetime) -> list[OutboxEvent]:
    """Outbox events of one decision, each with a new UUIDv7; only the terminal one is also replied."""
    return [encode_event(emission.name, emission.request, str(uuid7()), now) for emission in emissions]


def encode_accepted(request: Request, now: datetime) -> OutboxEvent:
    """The event that says: stored, cannot be lost any more."""
    return encode_event(EventName.ACCEPTED, request, str(uuid7()), now)


def encode_rejected(
    message: Message,
    request_id: str,
    fault: Fault,
    now: datetime,
    *,
    reply_only: bool = False,
    reply_to: str | None,
) -> OutboxEvent:
    """The answer to a message that was not accepted. Its id follows from the message, so a redelivery repeats it."""
    request = Request(
        request_id=request_id,
        version=0,
        state=RequestState.FAILED,
        sequence=1,
        source=message.source,
        model="",
        num_generations=0,
        received_at=now,
        finished_at=now,
        error=fault,
        correlation_id=message.correlation_id,
        reply_to=reply_to,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
    )
    parts = (message.body, message.message_id, message.correlation_id, message.reply_to, fault.code.value)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return encode_event(EventName.REJECTED, request, str(uuid5(REJECTIONS, digest)), now, reply_only=reply_only)


def encode_event(
    name: EventName, request: Request, event_id: str, now: datetime, *, reply_only: bool = False
) -> OutboxEvent:
    """One event under an id that the caller gives; `reply_only`: for `reply_to` alone."""
    word = name.value
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": event_id,
        "source": "drover",
        "type": f"drover.{word}.v1",
        "time": now,
        "datacontenttype": "application/json",
        "sequence": f"{request.sequence:010d}",
    }
    if request.request_id:  # CloudEvents allows no empty subject
        document["subject"] = request.request_id
    if request.traceparent:
        document["traceparent"] = request.traceparent
    document["data"] = event_data(request, rejected=name is EventName.REJECTED)
    return OutboxEvent(
        event_id=event_id,
        request_id=request.request_id,
        sequence=request.sequence,
        routing_key=None if reply_only else word,
        type=word,
        body=dumps(document),
        terminal=name.terminal,
        correlation_id=request.correlation_id,
        reply_to=request.reply_to if name.terminal else None,
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        stored=name is not EventName.REJECTED,
    )


def event_data(request: Request, *, rejected: bool = False) -> dict[str, object]:
    """`data` of an event, and of the HTTP API's answers: the request as it stands."""
    return {
        "request_id": request.request_id or None,
        "status": "rejected" if rejected else data_status(request),
        "model": request.model or None,
        "outputs": _outputs(request.outputs),
        "error": None if request.error is None else _error(request.error),
        "seed": request.seed,
        "attempts": request.attempts,
        "received_at": request.received_at,
        "submitted_at": request.submitted_at,
        "finished_at": request.finished_at,
        "metadata": None if request.metadata is None else orjson.Fragment(request.metadata),
    }


def read_fault(body: bytes) -> Fault | None:
    """`error` of an event that was written here; None where it has none."""
    error = orjson.loads(body)["data"]["error"]
    return None if error is None else Fault(ErrorCode(error["code"]), error["message"], tuple(error["details"]))


def _outputs(outputs: Sequence[Output]) -> list[dict[str, object]]:
    return [
        {
            "index": output.index,
            "generation_id": output.generation_id,
            "status": output.status.value,
            "media_type": output.media_type,
            "url": output.url,
            "error": _output_error(output),
        }
        for output in outputs
    ]


def _output_error(output: Output) -> dict[str, object] | None:
    if output.lost:
        return _error(Fault(ErrorCode.UPSTREAM_LOST, output.error or "The hub shows no generation for this output."))
    if output.status is OutputStatus.FAILED:
        told = output.error or "The hub reported a failure and gave no reason."
        return _error(Fault(ErrorCode.UPSTREAM_FAILED, told))
    if output.status is OutputStatus.CANCELLED:
        return _error(Fault(ErrorCode.CANCELLED, output.error or "The generation was cancelled at the hub."))
    return None


def _error(fault: Fault) -> dict[str, object]:
    return {"code": fault.code.value, "message": fault.message, "details": list(fault.details)}
