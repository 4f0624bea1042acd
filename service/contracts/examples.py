"""One example of each message and of each error code, made by what reads and writes the real ones, at fixed times.

A request goes the way of any request: read, decided on, encoded. Only the ids of events, which are random, are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from service.domain.decisions import Emission
from service.domain.errors import ErrorCode
from service.domain.facts import (
    Fact,
    HubAccepted,
    HubRefused,
    OutcomeUnknown,
    OutputMissing,
    OutputReported,
    StopRequested,
    Undecidable,
)
from service.domain.lifecycle import decide
from service.domain.messages import DEFAULT_MODEL, Identified, Message
from service.domain.states import EventName, Fault, OutputStatus, Request, RequestState, StopCause
from service.wire.builtin_models import BUILTIN_SCHEMAS
from service.wire.cancels import read_cancel
from service.wire.envelope import CLOUDEVENTS_JSON
from service.wire.events import encode_event, encode_rejected
from service.wire.json import dumps, loads
from service.wire.model_schema import ModelSchema
from service.wire.requests import RequestRules, read_message

Document = dict[str, Any]
RECEIVED = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
SUBMITTED, FIRST_END, ENDED = (RECEIVED + timedelta(seconds=seconds) for seconds in (1, 94, 101))
RULES = RequestRules(target_namespaces=frozenset({"studio"}))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GENERATIONS = ("5b2f8a64-90c1-4f7e-9d53-2a61c7e80b14", "c8d10e3a-6f25-4b92-8e07-91fd4a3b6c5d")
SEED = 1_234_567
URL = "https://files.example/generations/{}.mp4?expires=1896091300&signature=3d0f"

MINIMAL: Document = {"request_id": "shot-17", "input": {"prompt": "a lighthouse at dawn"}}
FULL: Document = {
    "request_id": "campaign-42.shot-07",
    "model": DEFAULT_MODEL,
    "input": {
        "prompt": "a lighthouse at dawn, waves, slow aerial shot",
        "num_frames": 121,
        "resolution": "landscape_16_9",
        "frames_per_second": 24,
        "generate_audio": True,
        "video_quality": "high",
    },
    "num_generations": 2,
    "target_namespace": "studio",
    "priority": 7,
    "deadline": "2099-12-31T18:00:00Z",
    "metadata": {"campaign": 42, "shot": "07"},
}


@dataclass(frozen=True, slots=True)
class Example:
    """One message: `message` is its schema's name, `body` the document; `code` is set where it shows an error."""

    message: str
    title: str
    body: Document
    code: ErrorCode | None = None


def examples() -> dict[str, Example]:
    """All of them by the name of their file."""
    return {**_incoming(), **_events(), **_errors()}


def _incoming() -> dict[str, Example]:
    cancel = {"request_id": FULL["request_id"]}
    made = {
        "request-minimal": Example("generation.request", "The smallest request", MINIMAL),
        "request-full": Example("generation.request", "A request with every field", FULL),
        "request-cloudevents": Example(
            "generation.request.cloudevents",
            "A request in a CloudEvents envelope",
            _enveloped("generation.request", "9f0c2c1e-1", {**MINIMAL, "request_id": "shot-18"}),
        ),
        "cancel": Example("generation.cancel", "A cancel", cancel),
        "cancel-cloudevents": Example(
            "generation.cancel.cloudevents",
            "A cancel in a CloudEvents envelope",
            _enveloped("generation.cancel", "9f0c2c1e-2", {"request_id": "shot-17"}),
        ),
    }
    for name, example in made.items():
        message = Message(dumps(example.body))
        read = read_cancel(message) if "cancel" in example.message else read_message(message, RULES, RECEIVED)
        fault = read if isinstance(read, Fault) else getattr(read, "fault", None)
        if fault is not None:
            raise ValueError(f"The example {name} is refused: {fault.message}")
    return made


def _enveloped(kind: str, event_id: str, data: Document) -> Document:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/studio/planner",
        "type": f"studio.{kind}.v1",
        "time": "2030-01-31T11:59:59Z",
        "datacontenttype": "application/json",
        "data": data,
    }


# -- events -----------------------------------------------------------------------------------------------------------


def _events() -> dict[str, Example]:
    full = _read(FULL)
    good = _after(full, _ids(2), _success(0), _success(1))
    mixed = _after(full, _ids(2), _failure(0), _success(1))
    bad = _after(full, _ids(2), _failure(0), _failure(1, "The prompt was refused by the safety filter."))
    cancelled = _after(full, _ids(2), _success(0), StopRequested(StopCause.CANCEL), _cancelled(1))
    expired = _after(full, _ids(2), StopRequested(StopCause.DEADLINE), _cancelled(0), _cancelled(1))
    accepted = encode_event(EventName.ACCEPTED, full, _event_id(RECEIVED, 1), RECEIVED)
    return {
        "accepted": _event("Stored", accepted.body),
        "submitted": _event("The hub has given its ids", good[0]),
        "output": _event("The first of two outputs ended", good[1]),
        "succeeded": _event("All outputs succeeded", good[-1]),
        "partial": _event("One output succeeded, the other failed", mixed[-1]),
        "failed": _event("No output succeeded", bad[-1]),
        "cancelled": _event("Cancelled, after one output had succeeded", cancelled[-1]),
        "expired": _event("The deadline passed", expired[-1]),
        "rejected": _event("The message is no request", _rejected(*_invalid_message())),
    }


def _errors() -> dict[str, Example]:
    one = _read(MINIMAL)
    model = "no-such-model"
    cancel, deadline = StopRequested(StopCause.CANCEL), StopRequested(StopCause.DEADLINE)
    refusal = Fault(
        ErrorCode.UPSTREAM_REJECTED,
        "The hub refused the request: the prompt is too long.",
        ({"type": "invalid_params"},),
    )
    unknown = Fault(ErrorCode.UNKNOWN_MODEL, f"The hub has no model {model!r}.")
    conflict = Fault(
        ErrorCode.IDEMPOTENCY_CONFLICT, "This request_id is known with other content; the first request is untouched."
    )
    missing = [OutputMissing(GENERATIONS[0], asked_at, timedelta(seconds=5)) for asked_at in (FIRST_END, ENDED)]
    doubt = Undecidable("its listings were not complete for 24 h")
    bodies = {
        ErrorCode.INVALID_MESSAGE: _rejected(*_invalid_message()),
        ErrorCode.INVALID_INPUT: _rejected(*_invalid_input()),
        ErrorCode.UNKNOWN_MODEL: _rejected({**MINIMAL, "model": model}, unknown),
        ErrorCode.IDEMPOTENCY_CONFLICT: _rejected({**MINIMAL, "input": {"prompt": "a harbour"}}, conflict),
        ErrorCode.UPSTREAM_REJECTED: _after(one, HubRefused(refusal))[-1],
        ErrorCode.UPSTREAM_FAILED: _after(one, _ids(1), _failure(0))[-1],
        ErrorCode.UPSTREAM_LOST: _after(one, _ids(1), *missing)[-1],
        ErrorCode.OUTCOME_UNKNOWN: _after(one, OutcomeUnknown("the answer was lost"), doubt)[-1],
        ErrorCode.DEADLINE_EXCEEDED: _after(one, _ids(1), deadline, _cancelled(0))[-1],
        ErrorCode.CANCELLED: _after(one, _ids(1), cancel, _cancelled(0))[-1],
        ErrorCode.INTERNAL: _rejected(MINIMAL, Fault(ErrorCode.INTERNAL, "The request could not be stored.")),
    }
    return {f"error-{code}": _event(f"The error code {code}", body, code) for code, body in bodies.items()}


def _event(title: str, body: bytes, code: ErrorCode | None = None) -> Example:
    document = loads(body)
    if not isinstance(document, dict):
        raise TypeError("An event is an object.")
    name = str(document["type"]).removeprefix("drover.").removesuffix(".v1")
    return Example(name, title, document, code)


def _read(body: Document) -> Request:
    """The request as intake stores it."""
    message = Message(dumps(body), correlation_id="c-1", traceparent=TRACEPARENT)
    read = read_message(message, RULES, RECEIVED)
    if not isinstance(read, Identified) or read.accepted is None:
        raise ValueError(f"The example {body['request_id']} is no request: {read.fault}")
    request = read.accepted.request
    return replace(request, seed=SEED) if request.num_generations == 1 else request  # which is chosen by chance


def _after(request: Request, *facts: Fact) -> list[bytes]:
    """The events of a request that was claimed once, through these facts."""
    now, told = replace(request, state=RequestState.SUBMITTING, attempts=1), list[bytes]()
    for number, fact in enumerate(facts):
        moment = _moment(number, facts)
        decision = decide(now, [fact], moment)
        if decision is None:
            raise ValueError(f"The fact decides nothing: {fact}")
        now = decision.after
        told += [_encoded(emission, moment) for emission in decision.emissions]
    return told


def _moment(number: int, facts: Sequence[Fact]) -> datetime:
    if number == 0:
        return SUBMITTED
    return ENDED if number == len(facts) - 1 else FIRST_END


def _encoded(emission: Emission, now: datetime) -> bytes:
    event_id = _event_id(now, emission.request.sequence)
    return encode_event(emission.name, emission.request, event_id, now).body


def _event_id(now: datetime, number: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) whose random part is a number."""
    return str(UUID(int=int(now.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62 | number))


def _ids(count: int) -> HubAccepted:
    return HubAccepted(GENERATIONS[:count])


def _success(index: int) -> OutputReported:
    name = GENERATIONS[index]
    return OutputReported(name, OutputStatus.SUCCEEDED, "video", URL.format(name))


def _failure(index: int, why: str = "The model ran out of memory.") -> OutputReported:
    return OutputReported(GENERATIONS[index], OutputStatus.FAILED, "video", error=why)


def _cancelled(index: int) -> OutputReported:
    return OutputReported(GENERATIONS[index], OutputStatus.CANCELLED, "video")


# -- rejections -------------------------------------------------------------------------------------------------------


def _rejected(body: Mapping[str, Any], fault: Fault) -> bytes:
    message = Message(dumps(body), correlation_id="c-1", traceparent=TRACEPARENT, content_type=CLOUDEVENTS_JSON)
    return encode_rejected(message, str(body["request_id"]), fault, RECEIVED, reply_to=None).body


def _invalid_message() -> tuple[Document, Fault]:
    body = {**MINIMAL, "num_generations": 9, "colour": "blue"}
    read = read_message(Message(dumps(body)), RULES, RECEIVED)
    if read.fault is None:
        raise ValueError("The example of an invalid message is valid.")
    return body, read.fault


def _invalid_input() -> tuple[Document, Fault]:
    parameters = {"prompt": "a lighthouse at dawn", "num_frames": 600, "video_quality": "best"}
    fault = ModelSchema.compile(DEFAULT_MODEL, BUILTIN_SCHEMAS[DEFAULT_MODEL]).fault(parameters)
    if fault is None:
        raise ValueError("The example of an invalid input is valid.")
    return {**MINIMAL, "input": parameters}, fault
