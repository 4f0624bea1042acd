"""What a fact comes to: a decision, to be written while the request is still as it was decided on."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from service.domain.errors import ErrorCode
from service.domain.states import EventName, Fault, Output, Request, RequestState, StopCause


class Emission(Struct, frozen=True):
    """An event to publish: its name, and the request as it stood at that moment."""

    name: EventName
    request: Request


class Decision(Struct, frozen=True):
    """What to write: the request as it will be, the outputs that changed, the events, and when to try again."""

    before: Request
    after: Request
    outputs: tuple[Output, ...] = ()
    emissions: tuple[Emission, ...] = ()
    retry_at: datetime | None = None
    reason: str | None = None


def joined(first: Decision, second: Decision) -> Decision:
    """Two decisions in a row as one."""
    changed = {output.index: output for output in (*first.outputs, *second.outputs)}
    return Decision(
        before=first.before,
        after=second.after,
        outputs=tuple(changed.values()),
        emissions=first.emissions + second.emissions,
        retry_at=second.retry_at,
        reason=second.reason or first.reason,
    )


def ended(
    request: Request, state: RequestState, name: EventName, now: datetime, *, fault: Fault | None = None
) -> Decision:
    """The one terminal state of a request, with its one terminal event."""
    after = replace(request, state=state, finished_at=now, error=fault, sequence=request.sequence + 1)
    return Decision(request, after, emissions=(Emission(name, after),))


def stopped(request: Request, cause: StopCause, now: datetime) -> Decision:
    """The end that somebody asked for, or that time has brought."""
    match cause:
        case StopCause.CANCEL:
            fault = Fault(ErrorCode.CANCELLED, "The request was cancelled before all of its outputs had succeeded.")
            return ended(request, RequestState.CANCELLED, EventName.CANCELLED, now, fault=fault)
        case StopCause.DEADLINE:
            fault = Fault(ErrorCode.DEADLINE_EXCEEDED, "The deadline passed before all of its outputs had succeeded.")
            return ended(request, RequestState.EXPIRED, EventName.EXPIRED, now, fault=fault)
