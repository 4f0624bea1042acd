"""Facts: what became known about a request, from whichever side. Decisions are made from them and nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from service.domain.states import Fault, OutputStatus, StopCause


class HubAccepted(Struct, frozen=True):
    """The POST was answered with ids, in the order of the outputs."""

    generation_ids: tuple[str, ...]
    attempt: int | None = None  # whose POST it was; None: the present attempt's (so in all four)


class HubRefused(Struct, frozen=True):
    """The hub judged the request and will not take it, now or later."""

    fault: Fault
    attempt: int | None = None


class NotSent(Struct, frozen=True):
    """The POST surely did not reach the hub, or was turned away unread: it may be tried again at `retry_at`."""

    reason: str
    retry_at: datetime
    attempt: int | None = None


class OutcomeUnknown(Struct, frozen=True):
    """The POST may have been accepted; nobody may repeat it before the hub's lists have been looked through."""

    reason: str
    attempt: int | None = None


class FoundUpstream(Struct, frozen=True):
    """The generations of a POST whose answer was lost, confirmed one by one; fewer than asked for: the rest is lost."""

    generation_ids: tuple[str, ...]


class NotFoundUpstream(Struct, frozen=True):
    """A complete listing, begun after the grace, does not show what the POST may have bought.

    `attempt` and `look` (from 1) say which listing it was: told twice, it is still one.
    """

    attempt: int
    look: int


class Undecidable(Struct, frozen=True):
    """The time in which a doubt can be decided is over."""

    reason: str


class InputFaulty(Struct, frozen=True):
    """The model's schema, which could not be asked at intake, refuses the input; nothing was submitted."""

    fault: Fault


class OutputReported(Struct, frozen=True):
    """What the stream or a GET says of one generation. Only an end changes anything, or its being there again."""

    generation_id: str
    status: OutputStatus
    media_type: str | None = None
    url: str | None = None
    error: str | None = None


class OutputMissing(Struct, frozen=True):
    """The hub answered at `asked_at` that it does not know the generation; lost if it says so `patience` later, too."""

    generation_id: str
    asked_at: datetime
    patience: timedelta


class OutputAbandoned(Struct, frozen=True):
    """The generation was to be ended, and the hub has not done it in all that time."""

    generation_id: str
    reason: str


class StopRequested(Struct, frozen=True):
    """The request is to end now: somebody cancelled it, or its deadline passed."""

    cause: StopCause


class StopPending(Struct, frozen=True):
    """The hub has been asked to end the outputs and has not done so yet: to be looked at again at `retry_at`."""

    retry_at: datetime


OutputFact = OutputReported | OutputMissing | OutputAbandoned
Fact = (
    HubAccepted
    | HubRefused
    | NotSent
    | OutcomeUnknown
    | FoundUpstream
    | NotFoundUpstream
    | Undecidable
    | InputFaulty
    | OutputFact
    | StopRequested
    | StopPending
)
SubmitOutcome = HubAccepted | HubRefused | NotSent | OutcomeUnknown
