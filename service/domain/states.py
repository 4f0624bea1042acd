"""The words of the state machine: states, outputs, and a request as decisions see it.

The names are spelled alike here, in SQL (`request_state`, `output_status`) and in events; a test compares them.
What each request asks of them many times is an attribute of the member, since a set hashes a member by slow code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from service.domain.errors import ErrorCode


class RequestState(StrEnum):
    """Where a request stands. Each line says who moves a row out of it."""

    ACCEPTED = "accepted"  # the submitter, by a claim
    SUBMITTING = "submitting"  # the submitter, by the outcome of its POST; the reconciler, when the claim ran out
    IN_DOUBT = "in_doubt"  # the reconciler, by what the hub's lists show
    SUBMITTED = "submitted"  # the listener or the reconciler, by the ends of the outputs
    CANCELLING = "cancelling"  # the stopper, the listener or the reconciler, by the ends of the outputs
    SUCCEEDED = "succeeded"  # nobody: ended
    FAILED = "failed"  # nobody: ended
    CANCELLED = "cancelled"  # nobody: ended
    EXPIRED = "expired"  # nobody: ended

    def __init__(self, word: str) -> None:
        self.ended = word in ("succeeded", "failed", "cancelled", "expired")
        """True once the terminal event is written; nothing changes the row any more."""


class OutputStatus(StrEnum):
    """Where one output (one generation of the hub) stands: the hub's own words."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def __init__(self, word: str) -> None:
        self.ended = word not in ("queued", "processing")
        """True once the hub will do no more for it."""


class StopCause(StrEnum):
    """Why a request is to end before its outputs do. The first cause stays."""

    CANCEL = "cancel"
    DEADLINE = "deadline"


class EventName(StrEnum):
    """Routing keys of the events, in the order in which a request meets them."""

    ACCEPTED = "generation.accepted"
    SUBMITTED = "generation.submitted"
    OUTPUT = "generation.output"
    SUCCEEDED = "generation.succeeded"
    FAILED = "generation.failed"
    CANCELLED = "generation.cancelled"
    EXPIRED = "generation.expired"
    REJECTED = "generation.rejected"

    def __init__(self, word: str) -> None:
        self.terminal = word not in ("generation.accepted", "generation.submitted", "generation.output")
        """True for the names after which a request emits nothing new."""


class Fault(Struct, frozen=True):
    """Why a request was refused or failed: `error` in events."""

    code: ErrorCode
    message: str
    details: tuple[Mapping[str, object], ...] = ()


class Output(Struct, frozen=True):
    """One generation of the hub; `index` counts from 0 within the request."""

    index: int
    generation_id: str | None  # None: bought, perhaps, and never found upstream
    status: OutputStatus = OutputStatus.QUEUED
    media_type: str | None = None
    url: str | None = None
    error: str | None = None
    lost: bool = False  # given up: the hub does not know it, or never ended it
    missing_since: datetime | None = None  # since when the hub has answered that it does not know it


class Request(Struct, frozen=True):
    """A stored request as decisions and events see it; `version` guards the write of a decision about it."""

    request_id: str
    version: int
    state: RequestState
    sequence: int  # of the last event
    source: str
    model: str
    num_generations: int
    received_at: datetime
    target_namespace: str | None = None
    seed: int | None = None
    attempts: int = 0
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    error: Fault | None = None
    outputs: tuple[Output, ...] = ()
    metadata: bytes | None = None  # JSON as it came; never read
    correlation_id: str | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    doubt_looks: int = 0  # complete listings after the grace that did not show what its POST may have bought
    stop_cause: StopCause | None = None  # set: no POST any more, and an end by this cause unless all outputs succeed
    stop_requested_at: datetime | None = None


class InFlight(Struct, frozen=True):
    """The generations of a namespace that the hub has not ended for us, and those that it has `denied` knowing."""

    namespace: str | None
    generation_ids: Sequence[str]
    denied: Sequence[str] = ()


class Claimed(Struct, frozen=True):
    """A request that this replica may submit until `expires` (monotonic seconds), with what the hub is to be sent."""

    request: Request
    input: Mapping[str, object]
    input_checked: bool
    expires: float
    began_at: datetime
