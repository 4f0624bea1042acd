"""What holds for any facts, in any order, with any repeats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.decisions import Decision, Emission
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
    OutputAbandoned,
    OutputMissing,
    OutputReported,
    StopPending,
    StopRequested,
    Undecidable,
)
from service.domain.lifecycle import data_status, decide
from service.domain.states import Fault, OutputStatus, Request, RequestState, StopCause
from tests.unit.builders import NOW, a_request

FAULT = Fault(ErrorCode.UPSTREAM_REJECTED, "no")
GENERATION_IDS = ("g0", "g1", "g2", "g3", "somebody-elses")
STATES = (RequestState.ACCEPTED, RequestState.SUBMITTING, RequestState.IN_DOUBT, RequestState.SUBMITTED)
PATIENCE = timedelta(seconds=30)

reports = st.builds(
    OutputReported,
    st.sampled_from(GENERATION_IDS),
    st.sampled_from(OutputStatus),
    media_type=st.sampled_from([None, "video"]),
    url=st.sampled_from([None, "https://files.test/x"]),
    error=st.sampled_from([None, "broke"]),
)
others: st.SearchStrategy[Fact] = st.sampled_from(
    [
        HubRefused(FAULT),
        InputFaulty(FAULT),
        NotSent("busy", NOW + timedelta(seconds=1)),
        OutcomeUnknown("reset"),
        FoundUpstream(("g0",)),
        FoundUpstream(("g0", "g1")),
        NotFoundUpstream(1, 1),
        NotFoundUpstream(1, 2),
        Undecidable("too late"),
        HubRefused(FAULT, 1),
        HubAccepted(("g0",), 1),
        NotSent("refused", NOW + timedelta(seconds=2), 1),
        OutcomeUnknown("late", 2),
        StopRequested(StopCause.CANCEL),
        StopRequested(StopCause.DEADLINE),
        StopPending(NOW + timedelta(seconds=3)),
        OutputAbandoned("g0", "never ended"),
        *(OutputMissing(f"g{index}", NOW + timedelta(seconds=at), PATIENCE) for index in (0, 1) for at in (0, 60)),
    ]
)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Request, list[Fact]]:
    """A request for 1 to 4 outputs in some state, and facts about it: the ids often, repeats as they fall."""
    count = draw(st.integers(1, 4))
    ids: Fact = HubAccepted(GENERATION_IDS[:count])
    state = draw(st.sampled_from(STATES))
    facts = draw(st.lists(st.one_of(reports, reports, st.just(ids), others), max_size=14))
    if draw(st.booleans()):
        facts.insert(0, ids)
    return a_request(state, outputs=count), facts


def one_by_one(request: Request, facts: Sequence[Fact]) -> tuple[Request, list[Decision]]:
    """What comes of it when each fact is decided and written alone."""
    decisions = []
    for fact in facts:
        decision = decide(request, [fact], NOW)
        if decision is not None:
            assert decision.before == request
            decisions.append(decision)
            request = decision.after
    return request, decisions


def emissions_of(decisions: Sequence[Decision]) -> list[Emission]:
    return [emission for decision in decisions for emission in decision.emissions]


@given(stories())
def test_facts_folded_together_come_to_the_same_as_facts_one_by_one(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    after, decisions = one_by_one(request, facts)
    together = decide(request, facts, NOW)
    if together is None:
        assert decisions == []
        return
    assert together.before == request
    assert together.after == after
    assert list(together.emissions) == emissions_of(decisions)
    written = {output.index: output for decision in decisions for output in decision.outputs}
    assert {output.index: output for output in together.outputs} == written
    assert together.retry_at == decisions[-1].retry_at


@given(stories())
def test_sequence_numbers_are_consecutive_and_the_last_is_the_requests(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    after, decisions = one_by_one(request, facts)
    numbers = [request.sequence, *(emission.request.sequence for emission in emissions_of(decisions))]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert after.sequence == numbers[-1]


@given(stories())
def test_there_is_at_most_one_terminal_event_and_nothing_after_it(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    after, decisions = one_by_one(request, facts)
    terminal = [emission.name.terminal for emission in emissions_of(decisions)]
    assert terminal.count(True) == (1 if after.state.ended else 0)
    assert True not in terminal[:-1]
    if after.state.ended:
        assert emissions_of(decisions)[-1].request == after


@given(stories())
def test_a_request_has_ended_exactly_when_it_says_when(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    _, decisions = one_by_one(request, facts)
    for decision in decisions:
        for seen in (decision.after, *(emission.request for emission in decision.emissions)):
            assert seen.state.ended == (seen.finished_at is not None)
            assert (seen.error is not None) == (seen.state.ended and seen.state is not RequestState.SUCCEEDED)


@given(stories())
def test_an_ended_request_is_past_every_fact(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    after, _ = one_by_one(request, facts)
    if after.state.ended:
        assert decide(after, facts, NOW) is None


@given(stories(), st.integers(2, 3))
def test_a_repeated_fact_decides_nothing(story: tuple[Request, list[Fact]], times: int) -> None:
    request, facts = story
    for fact in facts:
        first = decide(request, [fact], NOW)
        assert decide(request, [fact] * times, NOW) == first
        request = first.after if first else request


@given(stories())
def test_an_output_that_has_ended_keeps_its_end(story: tuple[Request, list[Fact]]) -> None:
    request, facts = story
    ended: dict[int, object] = {}
    for decision in one_by_one(request, facts)[1]:
        for output in decision.after.outputs:
            if output.status.ended:
                assert ended.setdefault(output.index, output) == output


@given(stories())
def test_a_request_whose_outputs_have_all_ended_has_ended(story: tuple[Request, list[Fact]]) -> None:
    after, _ = one_by_one(*story)
    if after.outputs and all(output.status.ended for output in after.outputs):
        assert after.state.ended
        if after.stop_cause is not None and after.state is RequestState.SUCCEEDED:
            assert all(output.status is OutputStatus.SUCCEEDED for output in after.outputs)
    if after.state is RequestState.SUCCEEDED:
        every = all(output.status is OutputStatus.SUCCEEDED for output in after.outputs)
        assert data_status(after) == ("succeeded" if every else "partial")


@given(st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_in_which_outputs_end_does_not_change_the_end(count: int, random: Random) -> None:
    ends = [
        OutputReported(f"g{index}", (OutputStatus.SUCCEEDED, OutputStatus.FAILED, OutputStatus.CANCELLED)[index % 3])
        for index in range(count)
    ]
    shuffled = list(ends)
    random.shuffle(shuffled)
    request = a_request(RequestState.SUBMITTED, outputs=count)
    assert one_by_one(request, shuffled)[0] == one_by_one(request, ends)[0]


@given(stories())
def test_wherever_a_story_stops_it_can_still_end(story: tuple[Request, list[Fact]]) -> None:
    after, _ = one_by_one(*story)
    rest: list[Fact] = [HubAccepted(("g0",)), StopRequested(StopCause.DEADLINE)]
    rest += [OutputReported(key, OutputStatus.CANCELLED) for key in GENERATION_IDS]
    assert one_by_one(after, rest)[0].state.ended
