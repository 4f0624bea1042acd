"""What goes out, as models: they describe what `service/wire/events.py` writes, and schemas are made from them.

Nothing is encoded through them, so a test holds real events of every kind against their schemas. Objects are open: a
consumer ignores what it does not know. `x-extensible-enum` marks the lists that may grow within a version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema

from service.domain.errors import ErrorCode
from service.domain.states import EventName, OutputStatus
from service.wire.envelope import REQUEST_ID

OPEN_ENUM = "x-extensible-enum"
DIGITS = "^[0-9]{10}$"
TRACEPARENT = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"

RequestId = Annotated[str, Field(pattern=f"^{REQUEST_ID.pattern}$", description="The id that the request came with.")]
Nothing = Annotated[None, WithJsonSchema({"type": "null"})]
Absent = Annotated[Nothing, Field(description="Null: nothing was taken from the message.")]
NoOutputs = Annotated[list["Output"], Field(max_length=0, description="Empty: there are none yet, or never will be.")]
SomeOutputs = Annotated[
    list["Output"], Field(min_length=1, max_length=4, description="One for each generation, in the order of `index`.")
]
Outputs = Annotated[
    list["Output"], Field(max_length=4, description="One for each generation; empty when nothing was submitted.")
]
ReceivedAt = Annotated[AwareDatetime, Field(description="When the request was stored (RFC 3339, UTC).")]
SubmittedAt = Annotated[AwareDatetime, Field(description="When the hub gave its ids.")]
FinishedAt = Annotated[AwareDatetime, Field(description="When the request ended.")]
NoError = Annotated[Nothing, Field(description="Null: nothing failed that would end the request.")]


class Described(BaseModel):
    """The base: docstrings and annotations become the schema."""

    model_config = ConfigDict(protected_namespaces=())


class Error(Described):
    """Why a request was refused or failed, or why one output did."""

    code: str = Field(
        description="What went wrong. The list may grow: treat a code that you do not know as `internal`.",
        json_schema_extra={OPEN_ENUM: [code.value for code in ErrorCode]},
    )
    message: str = Field(description="What happened, for people; the wording may change.")
    details: list[dict[str, Any]] = Field(
        description=(
            "Of `invalid_input` and `invalid_message`: `path` (a JSON pointer into the request, such as "
            "`/input/num_frames`, or `property` and the name of an AMQP property) and `message`, one for each fault. "
            "Of `upstream_rejected`: `type`, the hub's own word. Else empty."
        )
    )


class Output(Described):
    """One generation of the hub."""

    index: int = Field(ge=0, le=3, description="Counts from 0 within the request.")
    generation_id: str | None = Field(
        description="The hub's id; null when the hub gave none and may have made it all the same."
    )
    status: str = Field(
        description="Where it stands, in the hub's words.",
        json_schema_extra={"enum": [status.value for status in OutputStatus]},
    )
    media_type: str | None = Field(
        description="What was made; null until that is known. The hub's list, which may grow.",
        json_schema_extra={OPEN_ENUM: ["video", "image"]},
    )
    url: str | None = Field(description="Where the file is, once it succeeded. It expires: copy what you want to keep.")
    error: Error | None = Field(description="Why this output did not succeed, else null.")


class Data(Described):
    """The request as it stood at the moment of the event."""

    request_id: RequestId
    status: str = Field(description="Where the request stands.")
    model: str = Field(description="The model that was asked for.")
    outputs: Outputs
    error: Error | None = Field(description="Why the request ended without success, else null.")
    seed: int | None = Field(
        description="The seed that the request gave or, where it gave none and the model takes one, the service chose."
    )
    attempts: int = Field(ge=0, description="How many times it was sent to the hub, failed connections included.")
    received_at: ReceivedAt
    submitted_at: AwareDatetime | None = Field(description="When the hub gave its ids; null when it has not.")
    finished_at: AwareDatetime | None = Field(description="When the request ended; null when it has not.")
    metadata: dict[str, Any] | None = Field(description="As the request gave it, to the byte; null when it gave none.")


class _UnderWay(Data):
    outputs: SomeOutputs
    status: Literal["submitted", "cancelling"] = Field(
        description="`cancelling` when a cancel or the deadline came while it was under way."
    )
    error: NoError
    submitted_at: SubmittedAt
    finished_at: Annotated[Nothing, Field(description="Null: it has not ended.")]


class _Unsuccessful(Data):
    error: Error
    finished_at: FinishedAt


class AcceptedData(Data):
    """The request as it was stored."""

    status: Literal["accepted"]
    outputs: NoOutputs
    error: NoError
    attempts: Literal[0]
    submitted_at: Annotated[Nothing, Field(description="Null: it has not been submitted.")]
    finished_at: Annotated[Nothing, Field(description="Null: it has not ended.")]


class SubmittedData(_UnderWay):
    """The request with the hub's ids."""


class OutputData(_UnderWay):
    """The request with one output more that has ended."""


class SucceededData(Data):
    """The request with at least one output that succeeded."""

    status: Literal["succeeded", "partial"] = Field(description="`partial` when some outputs did not succeed.")
    outputs: SomeOutputs
    error: NoError
    submitted_at: SubmittedAt
    finished_at: FinishedAt


class FailedData(_Unsuccessful):
    """The request without a success."""

    status: Literal["failed"]


class CancelledData(_Unsuccessful):
    """The request as it was cancelled, with the outputs that had succeeded before."""

    status: Literal["cancelled"]


class ExpiredData(_Unsuccessful):
    """The request as its deadline found it, with the outputs that had succeeded before."""

    status: Literal["expired"]


class RejectedData(_Unsuccessful):
    """What is known of a message that was not accepted."""

    request_id: Annotated[str | None, RequestId.__metadata__[0]]  # type: ignore[assignment]  # not all have one
    status: Literal["rejected"]
    model: Absent  # type: ignore[assignment]  # a message that was not taken for a request has none
    outputs: NoOutputs
    seed: Absent
    attempts: Literal[0]
    received_at: AwareDatetime = Field(description="When the message was read (RFC 3339, UTC).")
    submitted_at: Absent
    metadata: Absent


class Event(Described):
    """CloudEvents 1.0, structured JSON. It comes at least once, with the same `id` on every repeat."""

    specversion: Literal["1.0"]
    id: UUID = Field(description="The same on every repeat: the key by which a consumer tells them.")
    source: Literal["drover"]
    type: str
    subject: RequestId
    time: datetime = Field(description="When it happened (RFC 3339, UTC).")
    datacontenttype: Literal["application/json"]
    sequence: str = Field(
        pattern=DIGITS,
        description="Rises within a request and sorts as text: consumers order by it, repeats come late.",
    )
    traceparent: str = Field(
        "", pattern=TRACEPARENT, description="Of the request (W3C Trace Context); absent when it had none."
    )
    data: Data


class Accepted(Event):
    """The request is stored: from here on it cannot be lost, and exactly one terminal event will follow."""

    type: Literal["drover.generation.accepted.v1"]
    data: AcceptedData


class Submitted(Event):
    """The hub has given ids."""

    type: Literal["drover.generation.submitted.v1"]
    data: SubmittedData


class OutputEnded(Event):
    """One of several outputs ended; only for requests with `num_generations` above 1."""

    type: Literal["drover.generation.output.v1"]
    data: OutputData


class Succeeded(Event):
    """The end: all outputs ended, and at least one succeeded."""

    type: Literal["drover.generation.succeeded.v1"]
    data: SucceededData


class Failed(Event):
    """The end: no output succeeded, or the request was refused after it had been accepted."""

    type: Literal["drover.generation.failed.v1"]
    data: FailedData


class Cancelled(Event):
    """The end: cancelled on request, or at the hub by somebody else."""

    type: Literal["drover.generation.cancelled.v1"]
    data: CancelledData


class Expired(Event):
    """The end: its deadline passed before all outputs had succeeded."""

    type: Literal["drover.generation.expired.v1"]
    data: ExpiredData


class Rejected(Event):
    """The answer to a message that was not accepted. Nothing was submitted, and no stored request is touched."""

    type: Literal["drover.generation.rejected.v1"]
    subject: RequestId = Field("", description="The request id; absent when the message had no usable one.")
    data: RejectedData


EVENTS: dict[EventName, type[Event]] = {
    EventName.ACCEPTED: Accepted,
    EventName.SUBMITTED: Submitted,
    EventName.OUTPUT: OutputEnded,
    EventName.SUCCEEDED: Succeeded,
    EventName.FAILED: Failed,
    EventName.CANCELLED: Cancelled,
    EventName.EXPIRED: Expired,
    EventName.REJECTED: Rejected,
}
