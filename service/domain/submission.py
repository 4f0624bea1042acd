"""What becomes of a request by the outcome of its POST, known or found out. Late outcomes are told by their attempt."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.domain.decisions import Decision, Emission, ended, joined, stopped
from service.domain.errors import ErrorCode
from service.domain.facts import HubAccepted, HubRefused, InputFaulty, NotFoundUpstream, NotSent, OutcomeUnknown
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState

AWAITING_OUTCOME = (RequestState.SUBMITTING, RequestState.IN_DOUBT)
LOOKS = 2  # complete listings that must not show a generation before it may be bought again
NOT_SHOWN = "The hub shows no generation for this output."


def hub_accepted(request: Request, fact: HubAccepted, now: datetime) -> Decision | None:
    """Ids for the outputs. Of an earlier attempt they are as good: what was bought is better used than bought again."""
    late = fact.attempt is not None and request.state is RequestState.ACCEPTED and request.attempts >= fact.attempt
    if not fact.generation_ids or not (late or request.state in AWAITING_OUTCOME):
        return None
    return _submitted(request, fact.generation_ids, now)


def found_upstream(request: Request, generation_ids: tuple[str, ...], now: datetime) -> Decision | None:
    """The doubt is over: these are what the POST bought."""
    if request.state is not RequestState.IN_DOUBT or not generation_ids:
        return None
    return replace(_submitted(request, generation_ids, now), reason="found at the hub by its content")


def _submitted(request: Request, generation_ids: tuple[str, ...], now: datetime) -> Decision:
    """Outputs that got no id are lost, not bought again: they may exist all the same."""
    outputs = tuple(Output(index, generation_id) for index, generation_id in enumerate(generation_ids))
    after = replace(
        request,
        state=RequestState.SUBMITTED if request.stop_cause is None else RequestState.CANCELLING,
        outputs=outputs,
        submitted_at=now,
        sequence=request.sequence + 1,
    )
    retry_at = None if request.stop_cause is None else now
    decision = Decision(request, after, outputs, (Emission(EventName.SUBMITTED, after),), retry_at)
    for index in range(len(generation_ids), request.num_generations):
        lost = Output(index, None, OutputStatus.FAILED, error=NOT_SHOWN, lost=True)
        before = decision.after
        after = replace(before, outputs=(*before.outputs, lost), sequence=before.sequence + 1)
        step = Decision(before, after, (lost,), (Emission(EventName.OUTPUT, after),), retry_at)
        decision = joined(decision, step)
    return decision


def refused(request: Request, fact: HubRefused | InputFaulty, now: datetime) -> Decision | None:
    """The request's own fault: it fails."""
    if request.state not in AWAITING_OUTCOME:
        return None
    if isinstance(fact, HubRefused) and _of_another_attempt(request, fact):
        return None
    return ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fact.fault)


def not_sent(request: Request, fact: NotSent, now: datetime) -> Decision | None:
    """Back to the queue. The attempt counts all the same: the back-off follows from it. Said late of the very attempt
    that is in doubt, it settles the doubt."""
    told_late = request.state is RequestState.IN_DOUBT and fact.attempt is not None
    if not (told_late or request.state is RequestState.SUBMITTING) or _of_another_attempt(request, fact):
        return None
    return _requeued(request, now, fact.retry_at, fact.reason)


def outcome_unknown(request: Request, fact: OutcomeUnknown) -> Decision | None:
    """From now on the hub's lists decide."""
    if request.state is not RequestState.SUBMITTING or _of_another_attempt(request, fact):
        return None
    return Decision(request, replace(request, state=RequestState.IN_DOUBT, doubt_looks=0), reason=fact.reason)


def not_found_upstream(request: Request, fact: NotFoundUpstream, now: datetime) -> Decision | None:
    """Once is not enough; the second time the request goes back to be submitted again."""
    expected = (request.attempts, request.doubt_looks + 1)
    if request.state is not RequestState.IN_DOUBT or (fact.attempt, fact.look) != expected:
        return None
    if fact.look < LOOKS:
        return Decision(request, replace(request, doubt_looks=fact.look))
    return _requeued(replace(request, doubt_looks=0), now, now, f"not at the hub in {LOOKS} complete listings", request)


def undecidable(request: Request, reason: str, now: datetime) -> Decision | None:
    """Never silently repeated: the requester is told that it may have been made."""
    if request.state is not RequestState.IN_DOUBT:
        return None
    fault = Fault(ErrorCode.OUTCOME_UNKNOWN, f"Whether the hub accepted the request could not be found out: {reason}")
    return ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fault)


def _requeued(
    request: Request, now: datetime, retry_at: datetime, reason: str, before: Request | None = None
) -> Decision:
    """To be submitted again, unless it is to be stopped: then nothing is at the hub, and it ends."""
    if request.stop_cause is not None:
        return replace(stopped(request, request.stop_cause, now), before=before or request, reason=reason)
    after = replace(request, state=RequestState.ACCEPTED)
    return Decision(before or request, after, retry_at=retry_at, reason=reason)


def _of_another_attempt(request: Request, fact: HubRefused | NotSent | OutcomeUnknown) -> bool:
    return fact.attempt is not None and fact.attempt != request.attempts
