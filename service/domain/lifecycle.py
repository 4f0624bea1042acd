"""The state machine: (request, fact, now) -> decision. Pure and total; a late or repeated fact decides nothing.

Every legal move has one constructor here, and the store writes a decision only while the row's version is the one it
was made from. So duplicates, races and replays settle themselves: the second writer finds zero rows, reads again,
and decides anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.errors import ErrorCode
from service.domain.facts import (
    Fact,
    FoundUpstream,
    HubAccepted,
    HubRefused,
    InputFaulty,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    OutputReported,
    Undecidable,
)
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState

AWAITING_OUTCOME = (RequestState.SUBMITTING, RequestState.IN_DOUBT)
LOOKS = 2  # complete listings that must not show a generation before it may be bought again


@dataclass(frozen=True, slots=True)
class Emission:
    """An event to publish: its name, and the request as it stood at that moment."""

    name: EventName
    request: Request


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: the request as it will be, the outputs that changed, the events, and when to try again."""

    before: Request
    after: Request
    outputs: tuple[Output, ...] = ()
    emissions: tuple[Emission, ...] = ()
    retry_at: datetime | None = None
    reason: str | None = None


def decide(request: Request, facts: Sequence[Fact], now: datetime) -> Decision | None:
    """Folds facts about one request into one decision; None when none of them changes anything."""
    decision: Decision | None = None
    for fact in facts:
        step = _step(decision.after if decision else request, fact, now)
        if step is not None:
            decision = _join(decision, step) if decision else step
    return decision


def _step(request: Request, fact: Fact, now: datetime) -> Decision | None:
    """One fact. A request that has ended is past every fact."""
    if request.state.ended:
        return None
    match fact:
        case OutputReported():
            return _output_reported(request, fact, now)
        case HubAccepted(generation_ids):
            return _hub_accepted(request, generation_ids, now)
        case HubRefused(fault) | InputFaulty(fault):
            return _refused(request, fault, now)
        case NotSent():
            return _not_sent(request, fact)
        case OutcomeUnknown():
            return _outcome_unknown(request, fact)
        case FoundUpstream(generation_ids):
            return _found_upstream(request, generation_ids, now)
        case NotFoundUpstream():
            return _not_found_upstream(request, fact, now)
        case Undecidable(reason):
            return _undecidable(request, reason, now)


def _join(first: Decision, second: Decision) -> Decision:
    changed = {output.index: output for output in (*first.outputs, *second.outputs)}
    return Decision(
        before=first.before,
        after=second.after,
        outputs=tuple(changed.values()),
        emissions=first.emissions + second.emissions,
        retry_at=second.retry_at,
        reason=second.reason or first.reason,
    )


def _hub_accepted(request: Request, generation_ids: tuple[str, ...], now: datetime) -> Decision | None:
    """Ids for the outputs. Those that got none are lost, not bought again: they may exist all the same."""
    if request.state not in AWAITING_OUTCOME or not generation_ids:
        return None
    outputs = tuple(Output(index, generation_id) for index, generation_id in enumerate(generation_ids))
    after = replace(
        request,
        state=RequestState.SUBMITTED,
        outputs=outputs,
        submitted_at=now,
        sequence=request.sequence + 1,
    )
    decision = Decision(request, after, outputs, (Emission(EventName.SUBMITTED, after),))
    for index in range(len(generation_ids), request.num_generations):
        lost = Output(index, None, OutputStatus.FAILED, error="The hub shows no generation for this output.")
        before = decision.after
        after = replace(before, outputs=(*before.outputs, lost), sequence=before.sequence + 1)
        decision = _join(decision, Decision(before, after, (lost,), (Emission(EventName.OUTPUT, after),)))
    return decision


def _refused(request: Request, fault: Fault, now: datetime) -> Decision | None:
    if request.state not in AWAITING_OUTCOME:
        return None
    return _ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fault)


def _not_sent(request: Request, fact: NotSent) -> Decision | None:
    """Back to the queue. The attempt counts all the same: the back-off follows from it."""
    if request.state is not RequestState.SUBMITTING:
        return None
    after = replace(request, state=RequestState.ACCEPTED)
    return Decision(request, after, retry_at=fact.retry_at, reason=fact.reason)


def _outcome_unknown(request: Request, fact: OutcomeUnknown) -> Decision | None:
    if request.state is not RequestState.SUBMITTING:
        return None
    return Decision(request, replace(request, state=RequestState.IN_DOUBT, doubt_looks=0), reason=fact.reason)


def _found_upstream(request: Request, generation_ids: tuple[str, ...], now: datetime) -> Decision | None:
    if request.state is not RequestState.IN_DOUBT:
        return None
    decision = _hub_accepted(request, generation_ids, now)
    return decision and replace(decision, reason="found at the hub by its content")


def _not_found_upstream(request: Request, fact: NotFoundUpstream, now: datetime) -> Decision | None:
    """Once is not enough; the second time the request goes back to be submitted again."""
    expected = (request.attempts, request.doubt_looks + 1)
    if request.state is not RequestState.IN_DOUBT or (fact.attempt, fact.look) != expected:
        return None
    if fact.look < LOOKS:
        return Decision(request, replace(request, doubt_looks=fact.look))
    after = replace(request, state=RequestState.ACCEPTED, doubt_looks=0)
    return Decision(request, after, retry_at=now, reason=f"not at the hub in {LOOKS} complete listings")


def _undecidable(request: Request, reason: str, now: datetime) -> Decision | None:
    if request.state is not RequestState.IN_DOUBT:
        return None
    fault = Fault(ErrorCode.OUTCOME_UNKNOWN, f"Whether the hub accepted the request could not be found out: {reason}")
    return _ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fault)


def _output_reported(request: Request, fact: OutputReported, now: datetime) -> Decision | None:
    known = next((output for output in request.outputs if output.generation_id == fact.generation_id), None)
    if known is None or known.status.ended or not fact.status.ended:
        return None
    ended = replace(
        known,
        status=fact.status,
        media_type=fact.media_type or known.media_type,
        url=fact.url,
        error=fact.error,
    )
    outputs = tuple(ended if output is known else output for output in request.outputs)
    after = replace(request, outputs=outputs)
    emissions: tuple[Emission, ...] = ()
    if request.num_generations > 1:
        after = replace(after, sequence=after.sequence + 1)
        emissions = (Emission(EventName.OUTPUT, after),)
    progress = Decision(request, after, (ended,), emissions)
    if not all(output.status.ended for output in outputs):
        return progress
    return _join(progress, _all_ended(after, now))


def _all_ended(request: Request, now: datetime) -> Decision:
    """Every output has its own end: success of any is success; else a failure of any is failure; else cancelled."""
    statuses = {output.status for output in request.outputs}
    if OutputStatus.SUCCEEDED in statuses:
        return _ended(request, RequestState.SUCCEEDED, EventName.SUCCEEDED, now)
    if OutputStatus.FAILED in statuses:
        told = next((output.error for output in request.outputs if output.error), None)
        found = any(output.generation_id is not None for output in request.outputs)
        code = ErrorCode.UPSTREAM_FAILED if found else ErrorCode.UPSTREAM_LOST
        fault = Fault(code, told or "The hub reported a failure and gave no reason.")
        return _ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fault)
    fault = Fault(ErrorCode.CANCELLED, "The generation was cancelled at the hub.")
    return _ended(request, RequestState.CANCELLED, EventName.CANCELLED, now, fault=fault)


def _ended(
    request: Request, state: RequestState, name: EventName, now: datetime, *, fault: Fault | None = None
) -> Decision:
    after = replace(request, state=state, finished_at=now, error=fault, sequence=request.sequence + 1)
    return Decision(request, after, emissions=(Emission(name, after),))


def data_status(request: Request) -> str:
    """`data.status` of an event: the state, or `partial` when some outputs of a success did not succeed."""
    if request.state is RequestState.SUCCEEDED and any(
        output.status is not OutputStatus.SUCCEEDED for output in request.outputs
    ):
        return "partial"
    return request.state.value
