"""How a request is stopped, in every state; generations that are lost; facts about another attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from service.domain.decisions import Decision
from service.domain.errors import ErrorCode
from service.domain.facts import (
    Fact,
    FoundUpstream,
    HubAccepted,
    HubRefused,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    OutputAbandoned,
    OutputMissing,
    StopPending,
    StopRequested,
    Undecidable,
)
from service.domain.lifecycle import data_status, decide
from service.domain.states import EventName, Fault, OutputStatus, Request, RequestState, StopCause
from tests.unit.builders import NOW, a_request, cancelled, failed, names, succeeded

CANCEL, DEADLINE = StopRequested(StopCause.CANCEL), StopRequested(StopCause.DEADLINE)
FAULT = Fault(ErrorCode.UPSTREAM_REJECTED, "no")
ENDS = {
    StopCause.CANCEL: (RequestState.CANCELLED, ErrorCode.CANCELLED, EventName.CANCELLED),
    StopCause.DEADLINE: (RequestState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED, EventName.EXPIRED),
}
LATER = NOW + timedelta(seconds=5)
PATIENCE = timedelta(minutes=10)


def decided(request: Request, *facts: Fact) -> Decision:
    decision = decide(request, facts, NOW)
    assert decision is not None
    return decision


def ended_by(decision: Decision, cause: StopCause) -> bool:
    after = decision.after
    assert after.error is not None
    return (after.state, after.error.code, names(decision)[-1]) == ENDS[cause] and after.finished_at == NOW


CAUSES = pytest.mark.parametrize("cause", list(StopCause))


@CAUSES
def test_what_waits_ends_at_once_and_nothing_is_bought(cause: StopCause) -> None:
    decision = decided(a_request(RequestState.ACCEPTED), StopRequested(cause))
    assert ended_by(decision, cause)
    assert decision.before == a_request(RequestState.ACCEPTED)


@CAUSES
@pytest.mark.parametrize("state", [RequestState.SUBMITTING, RequestState.IN_DOUBT])
def test_what_may_have_been_bought_goes_on_until_that_is_known(state: RequestState, cause: StopCause) -> None:
    decision = decided(a_request(state), StopRequested(cause))
    assert (decision.after.state, decision.after.stop_cause, decision.after.stop_requested_at) == (state, cause, NOW)
    assert decision.emissions == ()


@CAUSES
def test_what_is_at_the_hub_is_to_be_ended_there(cause: StopCause) -> None:
    decision = decided(a_request(RequestState.SUBMITTED, outputs=2), StopRequested(cause))
    assert (decision.after.state, decision.after.stop_cause) == (RequestState.CANCELLING, cause)
    assert (decision.retry_at, decision.emissions) == (NOW, ())


@CAUSES
@pytest.mark.parametrize(
    "outcome", [NotSent("refused", LATER), NotFoundUpstream(1, 1), NotFoundUpstream(1, 2)], ids=lambda f: str(f)[:28]
)
def test_stopped_before_it_reached_the_hub_it_is_not_tried_again(outcome: Fact, cause: StopCause) -> None:
    state = RequestState.SUBMITTING if isinstance(outcome, NotSent) else RequestState.IN_DOUBT
    looks = outcome.look - 1 if isinstance(outcome, NotFoundUpstream) else 0
    stopping = decided(a_request(state, doubt_looks=looks), StopRequested(cause)).after
    decision = decided(stopping, outcome)
    if isinstance(outcome, NotFoundUpstream) and outcome.look == 1:
        assert decision.after.state is RequestState.IN_DOUBT
    else:
        assert ended_by(decision, cause)
        assert decision.before == stopping


@CAUSES
@pytest.mark.parametrize("outcome", [HubAccepted(("g0",)), FoundUpstream(("g0",))], ids=lambda f: type(f).__name__)
def test_bought_after_all_it_is_announced_and_then_ended_at_the_hub(outcome: Fact, cause: StopCause) -> None:
    stopping = decided(a_request(RequestState.IN_DOUBT), StopRequested(cause)).after
    decision = decided(stopping, outcome)
    assert (decision.after.state, names(decision), decision.retry_at) == (
        RequestState.CANCELLING,
        [EventName.SUBMITTED],
        NOW,
    )
    assert ended_by(decided(decision.after, cancelled()), cause)


def test_a_refusal_and_an_undecidable_doubt_speak_for_themselves_although_it_was_stopped() -> None:
    stopping = decided(a_request(RequestState.IN_DOUBT), CANCEL).after
    assert decided(stopping, HubRefused(FAULT)).after.error == FAULT
    undecided = decided(stopping, Undecidable("too late")).after
    assert (undecided.state, undecided.error and undecided.error.code) == (
        RequestState.FAILED,
        ErrorCode.OUTCOME_UNKNOWN,
    )


@CAUSES
@pytest.mark.parametrize(
    "others",
    [(cancelled("g1"),), (failed("g1"),), (OutputAbandoned("g1", "never"),)],
    ids=lambda f: type(f[0]).__name__,
)
def test_every_output_keeps_its_own_end_and_one_success_of_two_is_not_a_success(
    others: tuple[Fact], cause: StopCause
) -> None:
    stopping = decided(a_request(RequestState.SUBMITTED, outputs=2), StopRequested(cause)).after
    decision = decided(stopping, succeeded("g0"), *others)
    assert ended_by(decision, cause)
    assert decision.after.outputs[0].url == "https://files.test/g0.mp4"
    assert names(decision) == [EventName.OUTPUT, EventName.OUTPUT, ENDS[cause][2]]


@CAUSES
def test_all_outputs_succeeded_after_all(cause: StopCause) -> None:
    stopping = decided(a_request(RequestState.SUBMITTED, outputs=2), StopRequested(cause)).after
    decision = decided(stopping, succeeded("g0"), succeeded("g1"))
    assert (decision.after.state, data_status(decision.after)) == (RequestState.SUCCEEDED, "succeeded")
    assert decision.after.error is None


@pytest.mark.parametrize("state", [s for s in RequestState if not s.ended and s is not RequestState.ACCEPTED])
def test_the_first_cause_stays(state: RequestState) -> None:
    stopping = replace(a_request(state), stop_cause=StopCause.CANCEL)
    assert decide(stopping, [DEADLINE, CANCEL], NOW) is None


def test_a_hub_that_takes_its_time_is_asked_again_later() -> None:
    stopping = decided(a_request(RequestState.SUBMITTED), CANCEL).after
    decision = decided(stopping, StopPending(LATER))
    assert (decision.after, decision.retry_at) == (stopping, LATER)
    assert decide(a_request(RequestState.SUBMITTED), [StopPending(LATER)], NOW) is None


def test_only_what_is_to_be_stopped_can_be_abandoned() -> None:
    assert decide(a_request(RequestState.SUBMITTED), [OutputAbandoned("g0", "never")], NOW) is None


# -- generations that the hub does not know -------------------------------------------------------------------------


def missing(seconds: float, generation_id: str = "g0") -> OutputMissing:
    return OutputMissing(generation_id, NOW + timedelta(seconds=seconds), PATIENCE)


def test_a_generation_is_lost_only_when_the_hub_denies_it_again_after_the_patience() -> None:
    request = a_request(RequestState.SUBMITTED)
    first = decided(request, missing(0))
    assert (first.after.state, first.after.outputs[0].missing_since) == (RequestState.SUBMITTED, NOW)
    assert decide(first.after, [missing(599)], NOW) is None
    lost = decided(first.after, missing(600))
    assert (lost.after.state, lost.after.error and lost.after.error.code) == (
        RequestState.FAILED,
        ErrorCode.UPSTREAM_LOST,
    )
    assert (lost.after.outputs[0].lost, lost.after.outputs[0].generation_id) == (True, "g0")


def test_a_generation_that_is_there_again_begins_anew() -> None:
    absent = decided(a_request(RequestState.SUBMITTED), missing(0)).after
    there = replace(cancelled(), status=OutputStatus.PROCESSING)
    back = decided(absent, there).after
    assert back.outputs[0].missing_since is None
    assert decided(back, missing(700)).after.state is RequestState.SUBMITTED
    assert decide(back, [there], NOW) is None


def test_one_lost_output_of_several_leaves_a_partial_success_and_one_real_failure_is_told_as_such() -> None:
    two = a_request(RequestState.SUBMITTED, outputs=2)
    partial = decided(two, missing(0), missing(600), succeeded("g1")).after
    assert (partial.state, data_status(partial)) == (RequestState.SUCCEEDED, "partial")
    mixed = decided(two, missing(0), missing(600), failed("g1")).after
    assert mixed.error is not None
    assert mixed.error.code is ErrorCode.UPSTREAM_FAILED


def test_of_an_end_and_a_denial_the_end_counts() -> None:
    assert decide(decided(a_request(RequestState.SUBMITTED), succeeded()).after, [missing(0)], NOW) is None


# -- outcomes of another attempt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RequestState.SUBMITTING, RequestState.IN_DOUBT])
@pytest.mark.parametrize(
    "late",
    [HubRefused(FAULT, 1), NotSent("refused", LATER, 1), OutcomeUnknown("reset", 1)],
    ids=lambda fact: type(fact).__name__,
)
def test_a_late_outcome_of_an_earlier_attempt_says_nothing_about_the_present_one(
    state: RequestState, late: Fact
) -> None:
    assert decide(a_request(state, attempts=2), [late], NOW) is None


@pytest.mark.parametrize("state", [RequestState.ACCEPTED, RequestState.SUBMITTING, RequestState.IN_DOUBT])
def test_ids_are_taken_from_whichever_attempt_they_come(state: RequestState) -> None:
    assert decided(a_request(state, attempts=2), HubAccepted(("g0",), 1)).after.state is RequestState.SUBMITTED


def test_a_doubt_is_over_when_its_own_attempt_turns_out_not_to_have_been_sent() -> None:
    decision = decided(a_request(RequestState.IN_DOUBT), NotSent("refused", LATER, 1))
    assert (decision.after.state, decision.retry_at) == (RequestState.ACCEPTED, LATER)
