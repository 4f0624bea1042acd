"""Every legal move of a request, one specification each; what is not a legal move decides nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from service.domain.decisions import Decision
from service.domain.errors import ErrorCode
from service.domain.facts import Fact, HubAccepted, HubRefused, InputFaulty, NotSent, OutcomeUnknown, OutputReported
from service.domain.lifecycle import data_status, decide
from service.domain.states import EventName, Fault, Output, OutputStatus, Request, RequestState
from tests.unit.builders import NOW, a_request, cancelled, failed, names, succeeded

FAULT = Fault(ErrorCode.UPSTREAM_REJECTED, "no", ({"type": "invalid_params"},))
FAULTY_INPUT = Fault(ErrorCode.INVALID_INPUT, "no", ({"path": "/input/prompt", "message": "is missing"},))
EVERY_FACT: tuple[Fact, ...] = (
    HubAccepted(("g0",)),
    HubRefused(FAULT),
    InputFaulty(FAULTY_INPUT),
    NotSent("429", NOW),
    OutcomeUnknown("reset"),
    succeeded(),
    failed(),
    cancelled(),
)


def decided(request: Request, *facts: Fact) -> Decision:
    decision = decide(request, facts, NOW)
    assert decision is not None
    return decision


def outputs_ended(*statuses: OutputStatus) -> Decision:
    facts = [OutputReported(f"g{index}", status) for index, status in enumerate(statuses)]
    return decided(a_request(RequestState.SUBMITTED, outputs=len(statuses)), *facts)


AWAITING = pytest.mark.parametrize("state", [RequestState.SUBMITTING, RequestState.IN_DOUBT])


@AWAITING
def test_ids_from_the_hub_make_a_request_submitted(state: RequestState) -> None:
    decision = decided(a_request(state, outputs=2), HubAccepted(("x", "y")))
    assert decision.after.state is RequestState.SUBMITTED
    assert decision.after.submitted_at == NOW
    assert decision.after.finished_at is None
    assert decision.outputs == (Output(0, "x"), Output(1, "y")) == decision.after.outputs
    assert names(decision) == [EventName.SUBMITTED]
    assert decision.emissions[0].request == decision.after


@AWAITING
@pytest.mark.parametrize("fact", [HubRefused(FAULT), InputFaulty(FAULTY_INPUT)])
def test_a_refusal_ends_a_request_as_failed_with_its_fault(state: RequestState, fact: HubRefused | InputFaulty) -> None:
    decision = decided(a_request(state), fact)
    assert decision.after.state is RequestState.FAILED
    assert decision.after.error == fact.fault
    assert decision.after.finished_at == NOW
    assert names(decision) == [EventName.FAILED]


def test_what_was_not_sent_goes_back_to_the_queue_without_an_event() -> None:
    later = NOW + timedelta(seconds=7)
    decision = decided(a_request(RequestState.SUBMITTING), NotSent("the hub asks for fewer requests (429)", later))
    assert decision.after.state is RequestState.ACCEPTED
    assert decision.retry_at == later
    assert decision.reason == "the hub asks for fewer requests (429)"
    assert decision.emissions == ()
    assert decision.after.sequence == decision.before.sequence


def test_an_unknown_outcome_makes_a_request_in_doubt_without_an_event() -> None:
    decision = decided(a_request(RequestState.SUBMITTING), OutcomeUnknown("the POST was cut off after 20 s"))
    assert decision.after.state is RequestState.IN_DOUBT
    assert decision.reason == "the POST was cut off after 20 s"
    assert decision.emissions == ()
    assert decision.retry_at is None


@pytest.mark.parametrize("fact", [NotSent("late", NOW), OutcomeUnknown("late")], ids=lambda fact: type(fact).__name__)
def test_a_request_in_doubt_leaves_it_by_ids_or_a_refusal_only(fact: Fact) -> None:
    assert decide(a_request(RequestState.IN_DOUBT), [fact], NOW) is None


@pytest.mark.parametrize("fact", EVERY_FACT, ids=lambda fact: type(fact).__name__)
def test_an_accepted_request_that_nobody_claimed_is_moved_by_no_fact(fact: Fact) -> None:
    assert decide(a_request(RequestState.ACCEPTED), [fact], NOW) is None


@pytest.mark.parametrize("fact", EVERY_FACT[:5], ids=lambda fact: type(fact).__name__)
def test_a_submitted_request_is_moved_by_the_ends_of_its_outputs_only(fact: Fact) -> None:
    assert decide(a_request(RequestState.SUBMITTED), [fact], NOW) is None


@pytest.mark.parametrize("state", [state for state in RequestState if state.ended])
@pytest.mark.parametrize("fact", EVERY_FACT, ids=lambda fact: type(fact).__name__)
def test_an_ended_request_ignores_every_fact_even_about_an_output_left_open(state: RequestState, fact: Fact) -> None:
    request = replace(a_request(RequestState.SUBMITTED), state=state, finished_at=NOW)
    assert request.outputs[0].status is OutputStatus.QUEUED
    assert decide(request, [fact], NOW) is None


def test_the_success_of_the_only_output_is_the_success_of_the_request() -> None:
    decision = decided(a_request(RequestState.SUBMITTED), succeeded())
    assert decision.after.state is RequestState.SUCCEEDED
    assert decision.after.error is None
    assert decision.after.finished_at == NOW
    assert decision.outputs == (Output(0, "g0", OutputStatus.SUCCEEDED, "video", "https://files.test/g0.mp4"),)
    assert names(decision) == [EventName.SUCCEEDED]
    assert data_status(decision.after) == "succeeded"


def test_the_failure_of_the_only_output_fails_the_request_in_the_hubs_words() -> None:
    decision = decided(a_request(RequestState.SUBMITTED), failed(error="out of memory"))
    assert decision.after.state is RequestState.FAILED
    assert decision.after.error == Fault(ErrorCode.UPSTREAM_FAILED, "out of memory")
    assert names(decision) == [EventName.FAILED]


def test_a_failure_without_words_still_says_something() -> None:
    error = decided(a_request(RequestState.SUBMITTED), failed(error=None)).after.error
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_FAILED
    assert error.message


def test_a_generation_cancelled_at_the_hub_ends_the_request_as_cancelled() -> None:
    decision = decided(a_request(RequestState.SUBMITTED), cancelled())
    assert decision.after.state is RequestState.CANCELLED
    assert decision.after.error is not None
    assert decision.after.error.code is ErrorCode.CANCELLED
    assert names(decision) == [EventName.CANCELLED]


@pytest.mark.parametrize("status", [OutputStatus.QUEUED, OutputStatus.PROCESSING])
def test_progress_that_is_no_end_changes_nothing(status: OutputStatus) -> None:
    assert decide(a_request(RequestState.SUBMITTED), [OutputReported("g0", status)], NOW) is None


def test_the_end_of_somebody_elses_generation_changes_nothing() -> None:
    assert decide(a_request(RequestState.SUBMITTED), [succeeded("another")], NOW) is None


def test_one_of_several_outputs_ends_with_an_event_of_its_own() -> None:
    decision = decided(a_request(RequestState.SUBMITTED, outputs=3), succeeded("g1"))
    assert decision.after.state is RequestState.SUBMITTED
    assert [output.generation_id for output in decision.outputs] == ["g1"]
    assert names(decision) == [EventName.OUTPUT]


def test_the_last_of_several_outputs_ends_the_request_after_its_own_event() -> None:
    decision = decided(a_request(RequestState.SUBMITTED, outputs=2), succeeded("g1"), succeeded("g0"))
    assert names(decision) == [EventName.OUTPUT, EventName.OUTPUT, EventName.SUCCEEDED]
    assert [emission.request.sequence for emission in decision.emissions] == [3, 4, 5]
    shown = [[output.status.value for output in emission.request.outputs] for emission in decision.emissions]
    assert shown == [["queued", "succeeded"], ["succeeded", "succeeded"], ["succeeded", "succeeded"]]


S, F, C = OutputStatus.SUCCEEDED, OutputStatus.FAILED, OutputStatus.CANCELLED


@pytest.mark.parametrize(
    ("statuses", "state", "status"),
    [
        ((S, S), RequestState.SUCCEEDED, "succeeded"),
        ((S, F), RequestState.SUCCEEDED, "partial"),
        ((F, S), RequestState.SUCCEEDED, "partial"),
        ((S, C), RequestState.SUCCEEDED, "partial"),
        ((C, F, S, F), RequestState.SUCCEEDED, "partial"),
        ((F, F), RequestState.FAILED, "failed"),
        ((F, C), RequestState.FAILED, "failed"),
        ((C, C), RequestState.CANCELLED, "cancelled"),
    ],
)
def test_the_outputs_together_say_how_a_request_ended(
    statuses: tuple[OutputStatus, ...], state: RequestState, status: str
) -> None:
    decision = outputs_ended(*statuses)
    assert decision.after.state is state
    assert data_status(decision.after) == status


def test_the_first_output_that_says_why_speaks_for_a_failed_request() -> None:
    request = a_request(RequestState.SUBMITTED, outputs=3)
    error = decided(request, cancelled("g0"), failed("g2", "later"), failed("g1", "sooner")).after.error
    assert error is not None
    assert error.message == "sooner"


def test_a_media_type_once_known_is_not_forgotten_by_an_end_that_names_none() -> None:
    known = replace(a_request(RequestState.SUBMITTED), outputs=(Output(0, "g0", media_type="video"),))
    assert decided(known, failed()).outputs[0].media_type == "video"


def test_an_early_end_of_every_output_settles_in_one_call_with_the_ids() -> None:
    request = a_request(RequestState.SUBMITTING, outputs=2)
    decision = decided(request, HubAccepted(("g0", "g1")), succeeded("g1"), failed("g0"))
    assert names(decision) == [EventName.SUBMITTED, EventName.OUTPUT, EventName.OUTPUT, EventName.SUCCEEDED]
    assert [emission.request.sequence for emission in decision.emissions] == [2, 3, 4, 5]
    assert decision.before is request
    assert {output.generation_id: output.status for output in decision.outputs} == {"g0": F, "g1": S}
    assert len(decision.outputs) == 2, "each output is written once, as it ended"


def test_an_end_before_the_ids_decides_nothing_and_is_for_the_store_to_keep() -> None:
    decision = decided(a_request(RequestState.SUBMITTING), succeeded("g0"), HubAccepted(("g0",)))
    assert names(decision) == [EventName.SUBMITTED]


def test_no_facts_decide_nothing() -> None:
    assert decide(a_request(), [], NOW) is None
