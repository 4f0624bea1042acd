"""Values that many specifications begin with: a moment, a request in a state, a message, reports of the hub."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from service.domain.decisions import Decision
from service.domain.facts import OutputReported
from service.domain.messages import Identified, Message, NewRequest, Unidentified
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState
from service.wire.requests import RequestRules, read_message

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
RECEIVED = datetime(2030, 1, 31, 11, 59, tzinfo=UTC)
RULES = RequestRules()


def a_request(state: RequestState = RequestState.SUBMITTING, outputs: int = 1, **changes: Any) -> Request:
    """A request as the store reads it; a submitted one has `outputs` queued generations g0, g1, ..."""
    has_outputs = state is RequestState.SUBMITTED
    fields: dict[str, Any] = {
        "request_id": "r-1",
        "version": 3,
        "state": state,
        "sequence": 2 if has_outputs else 1,
        "source": "team-a",
        "model": "ltx-2-3-quality-text-to-video",
        "num_generations": outputs,
        "received_at": RECEIVED,
        "attempts": 1,
        "outputs": tuple(Output(index, f"g{index}") for index in range(outputs)) if has_outputs else (),
    }
    return Request(**{**fields, **changes})


def succeeded(generation_id: str = "g0") -> OutputReported:
    """The end of a generation that has a result."""
    return OutputReported(generation_id, OutputStatus.SUCCEEDED, "video", f"https://files.test/{generation_id}.mp4")


def failed(generation_id: str = "g0", error: str | None = "out of memory") -> OutputReported:
    """The end of a generation that has none."""
    return OutputReported(generation_id, OutputStatus.FAILED, error=error)


def cancelled(generation_id: str = "g0") -> OutputReported:
    """The end of a generation that somebody cancelled at the hub."""
    return OutputReported(generation_id, OutputStatus.CANCELLED)


def names(decision: Decision | None) -> list[EventName]:
    """The events of a decision, in order."""
    return [] if decision is None else [emission.name for emission in decision.emissions]


def a_body(**fields: Any) -> dict[str, Any]:
    """The smallest whole request, with changes."""
    return {"request_id": "r-1", "input": {"prompt": "a lighthouse"}, **fields}


def read(
    body: object, rules: RequestRules = RULES, now: datetime = NOW, **properties: Any
) -> Identified | Unidentified:
    """Reads a body (bytes as they are, anything else as JSON) the way intake does."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_message(Message(raw, **properties), rules, now)


def identified(body: object, rules: RequestRules = RULES, **properties: Any) -> Identified:
    """Reads a body that has a usable id."""
    found = read(body, rules, **properties)
    assert isinstance(found, Identified), found
    return found


def accepted(body: object, rules: RequestRules = RULES, **properties: Any) -> NewRequest:
    """Reads a body that is a whole request."""
    found = identified(body, rules, **properties)
    assert found.fault is None, found.fault
    assert found.accepted is not None
    return found.accepted


def refused(body: object, rules: RequestRules = RULES, **properties: Any) -> Fault:
    """Reads a body that has an id and a fault."""
    found = identified(body, rules, **properties)
    assert found.accepted is None
    assert found.fault is not None
    return found.fault


def paths(fault: Fault) -> list[object]:
    """Where the fault's details point."""
    return [detail["path"] for detail in fault.details]
