"""How outputs end, and with the last of them the request; and how a request is stopped before."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.domain.decisions import Decision, Emission, ended, joined, stopped
from service.domain.errors import ErrorCode
from service.domain.facts import OutputAbandoned, OutputMissing, OutputReported
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState, StopCause

UNKNOWN_TO_HUB = "The hub does not know this generation any more."
UNSTARTED = (RequestState.SUBMITTING, RequestState.IN_DOUBT)


def output_reported(request: Request, fact: OutputReported, now: datetime) -> Decision | None:
    """An end, or the sign that a generation which was missing is there."""
    known = _active(request, fact.generation_id)
    if known is None:
        return None
    if not fact.status.ended:
        return _changed(request, replace(known, missing_since=None)) if known.missing_since else None
    end = replace(
        known,
        status=fact.status,
        media_type=fact.media_type or known.media_type,
        url=fact.url,
        error=fact.error,
        missing_since=None,
    )
    return _output_ended(request, end, now)


def output_missing(request: Request, fact: OutputMissing, now: datetime) -> Decision | None:
    """Once is not enough: a hub that comes back from an illness may not know for a while what it has."""
    known = _active(request, fact.generation_id)
    if known is None:
        return None
    if known.missing_since is None or fact.asked_at < known.missing_since:
        return _changed(request, replace(known, missing_since=fact.asked_at))
    if fact.asked_at - known.missing_since < fact.patience:
        return None
    lost = replace(known, status=OutputStatus.FAILED, error=UNKNOWN_TO_HUB, lost=True)
    return replace(_output_ended(request, lost, now), reason="the hub does not know a generation any more")


def output_abandoned(request: Request, fact: OutputAbandoned, now: datetime) -> Decision | None:
    """Only what is to be stopped can be given up."""
    known = _active(request, fact.generation_id)
    if known is None or request.stop_cause is None:
        return None
    lost = replace(known, status=OutputStatus.FAILED, error=fact.reason, lost=True)
    return replace(_output_ended(request, lost, now), reason=fact.reason)


def stop_requested(request: Request, cause: StopCause, now: datetime) -> Decision | None:
    """Nothing bought yet: it ends at once. Perhaps bought: it ends when that is known. Bought: the hub is asked to end
    every output, and each is settled by its own fact."""
    if request.stop_cause is not None:
        return None
    marked = replace(request, stop_cause=cause, stop_requested_at=now)
    reason = f"to be stopped: {cause.value}"
    if request.state is RequestState.ACCEPTED:
        return replace(stopped(marked, cause, now), before=request)
    if request.state in UNSTARTED:
        return Decision(request, marked, reason=reason)
    return Decision(request, replace(marked, state=RequestState.CANCELLING), retry_at=now, reason=reason)


def stop_pending(request: Request, retry_at: datetime) -> Decision | None:
    """The hub takes its time."""
    return Decision(request, request, retry_at=retry_at) if request.state is RequestState.CANCELLING else None


def _active(request: Request, generation_id: str) -> Output | None:
    known = next((output for output in request.outputs if output.generation_id == generation_id), None)
    return None if known is None or known.status.ended else known


def _changed(request: Request, output: Output) -> Decision:
    outputs = tuple(output if other.index == output.index else other for other in request.outputs)
    return Decision(request, replace(request, outputs=outputs), (output,))


def _output_ended(request: Request, output: Output, now: datetime) -> Decision:
    progress = _changed(request, output)
    if request.num_generations > 1:
        after = replace(progress.after, sequence=request.sequence + 1)
        progress = replace(progress, after=after, emissions=(Emission(EventName.OUTPUT, after),))
    if not all(other.status.ended for other in progress.after.outputs):
        return progress
    return joined(progress, _all_ended(progress.after, now))


def _all_ended(request: Request, now: datetime) -> Decision:
    """Every output has its own end. Of a request that was stopped, only the success of all is a success; else the
    success of any is; else a failure of any is a failure; else all were cancelled."""
    statuses = {output.status for output in request.outputs}
    if request.stop_cause is not None and statuses != {OutputStatus.SUCCEEDED}:
        return stopped(request, request.stop_cause, now)
    if OutputStatus.SUCCEEDED in statuses:
        return ended(request, RequestState.SUCCEEDED, EventName.SUCCEEDED, now)
    if OutputStatus.FAILED in statuses:
        told = next((output.error for output in request.outputs if output.error), None)
        lost = all(output.lost for output in request.outputs if output.status is OutputStatus.FAILED)
        code = ErrorCode.UPSTREAM_LOST if lost else ErrorCode.UPSTREAM_FAILED
        fault = Fault(code, told or "The hub reported a failure and gave no reason.")
        return ended(request, RequestState.FAILED, EventName.FAILED, now, fault=fault)
    fault = Fault(ErrorCode.CANCELLED, "The generation was cancelled at the hub.")
    return ended(request, RequestState.CANCELLED, EventName.CANCELLED, now, fault=fault)
