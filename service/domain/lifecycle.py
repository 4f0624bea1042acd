"""The state machine: (request, facts, now) -> decision. Pure and total; a late or repeated fact decides nothing.

The store writes a decision only while the row's version is the one it was made from. So duplicates, races and replays
settle themselves: the second writer finds zero rows, reads again, and decides anew. The moves are in `submission.py`
(up to the ids) and `endings.py` (from there to the end).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from service.domain import endings, submission
from service.domain.decisions import Decision, joined
from service.domain.facts import (
    Fact,
    FoundUpstream,
    HubAccepted,
    HubRefused,
    InputFaulty,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    OutputAbandoned,
    OutputMissing,
    OutputReported,
    StopPending,
    StopRequested,
    Undecidable,
)
from service.domain.states import OutputStatus, Request, RequestState


def decide(request: Request, facts: Sequence[Fact], now: datetime) -> Decision | None:
    """Folds facts about one request into one decision; None when none of them changes anything."""
    decision: Decision | None = None
    for fact in facts:
        step = _step(decision.after if decision else request, fact, now)
        if step is not None:
            decision = joined(decision, step) if decision else step
    return decision


def _step(request: Request, fact: Fact, now: datetime) -> Decision | None:
    """One fact. A request that has ended is past every fact."""
    if request.state.ended:
        return None
    match fact:
        case OutputReported() | OutputMissing() | OutputAbandoned() | StopRequested() | StopPending():
            return _towards_the_end(request, fact, now)
        case HubAccepted():
            return submission.hub_accepted(request, fact, now)
        case HubRefused() | InputFaulty():
            return submission.refused(request, fact, now)
        case NotSent():
            return submission.not_sent(request, fact, now)
        case OutcomeUnknown():
            return submission.outcome_unknown(request, fact)
        case FoundUpstream(generation_ids):
            return submission.found_upstream(request, generation_ids, now)
        case NotFoundUpstream():
            return submission.not_found_upstream(request, fact, now)
        case Undecidable(reason):
            return submission.undecidable(request, reason, now)


def _towards_the_end(
    request: Request,
    fact: OutputReported | OutputMissing | OutputAbandoned | StopRequested | StopPending,
    now: datetime,
) -> Decision | None:
    match fact:
        case OutputReported():
            return endings.output_reported(request, fact, now)
        case OutputMissing():
            return endings.output_missing(request, fact, now)
        case OutputAbandoned():
            return endings.output_abandoned(request, fact, now)
        case StopRequested(cause):
            return endings.stop_requested(request, cause, now)
        case StopPending(retry_at):
            return endings.stop_pending(request, retry_at)


def data_status(request: Request) -> str:
    """`data.status` of an event: the state, or `partial` when some outputs of a success did not succeed."""
    if request.state is RequestState.SUCCEEDED and any(
        output.status is not OutputStatus.SUCCEEDED for output in request.outputs
    ):
        return "partial"
    return request.state.value
