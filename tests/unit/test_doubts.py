"""What a lost answer may have bought: recognised by its content, adopted, or given back to be submitted again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.facts import FoundUpstream, NotFoundUpstream, OutcomeUnknown, Undecidable
from service.domain.lifecycle import data_status, decide
from service.domain.matching import CLOCK_SKEW, Doubt, Sighting, assign, concerning, matches, same_value
from service.domain.states import EventName, OutputStatus, RequestState
from tests.unit.builders import NOW, a_request, names, succeeded

SENT = {"prompt": "a lighthouse", "num_frames": 121, "seed": 7}


def a_doubt(request_id: str = "r-1", *, outputs: int = 1, marked: bool = True, **sent: Any) -> Doubt:
    request = a_request(RequestState.IN_DOUBT, outputs, request_id=request_id)
    return Doubt(request, {**SENT, **sent}, marked, attempted_at=NOW, doubted_at=NOW)


def a_sighting(generation_id: str = "g0", after_s: float | None = 1.0, **shown: Any) -> Sighting:
    enqueued = None if after_s is None else NOW + timedelta(seconds=after_s)
    parameters = {**SENT, "generation_id": generation_id, "status": "queued", "media_type": "video", **shown}
    return Sighting(generation_id, "ltx-2-3-quality-text-to-video", parameters, enqueued)


@pytest.mark.parametrize(
    ("sent", "shown", "same"),
    [
        (24, 24.0, True),
        (1, True, False),
        (False, 0, False),
        (None, None, True),
        ([1, {"a": 2}], [1.0, {"a": 2}], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("24", 24, False),
    ],
)
def test_values_are_compared_as_json_has_them(sent: object, shown: object, same: bool) -> None:
    assert same_value(sent, shown) is same


@pytest.mark.parametrize(
    ("sighting", "matching"),
    [
        (a_sighting(), True),
        (a_sighting(num_frames=121.0), True),
        (a_sighting(seed=8), False),
        (a_sighting(prompt="another"), False),
        (a_sighting(after_s=-9999), True),  # the mark says more than a clock
        (a_sighting(after_s=None), True),
        (a_sighting(resolution="square"), True),  # the hub may echo its defaults beside a mark
        (Sighting("g0", "another-model", SENT, NOW), False),
        (Sighting("g0", "ltx-2-3-quality-text-to-video", {"prompt": "a lighthouse"}, NOW), False),
    ],
)
def test_a_mark_of_ours_is_recognised_by_every_parameter_that_was_sent(sighting: Sighting, matching: bool) -> None:
    assert matches(a_doubt(), sighting) is matching


@pytest.mark.parametrize(
    ("sighting", "matching"),
    [
        (a_sighting(), True),
        (a_sighting(after_s=-CLOCK_SKEW.total_seconds()), True),
        (a_sighting(after_s=-CLOCK_SKEW.total_seconds() - 1), False),
        (a_sighting(after_s=None), False),
        (a_sighting(resolution="square"), False),  # somebody asked for something else
        (a_sighting(error_message=None, progress=3), True),
        (a_sighting(resolution=None), True),  # null is as good as absent
    ],
)
def test_without_a_mark_the_time_and_nothing_else_in_it_count_too(sighting: Sighting, matching: bool) -> None:
    assert matches(a_doubt(marked=False), sighting) is matching


def test_a_model_without_a_prompt_is_recognised_although_the_hub_shows_one_that_is_null() -> None:
    sent = {"image_url": "https://example.com/a.png", "mask_url": None}
    doubt = Doubt(a_request(RequestState.IN_DOUBT), sent, marked=False, attempted_at=NOW, doubted_at=NOW)
    shown = {"image_url": sent["image_url"], "prompt": None, "status": "queued"}
    sighting = Sighting("g0", doubt.request.model, shown, NOW)
    assert assign([doubt], filter(concerning([doubt]), [sighting]), ()) == {"r-1": ("g0",)}


def test_each_generation_goes_to_one_request_the_oldest_attempt_first() -> None:
    first, second = a_doubt("first", marked=False), a_doubt("second", marked=False)
    sightings = [a_sighting("late", 3), a_sighting("early", 1)]
    assert assign([second, first], sightings, ()) == {"first": ("early",), "second": ("late",)}


def test_outputs_of_ours_are_nobodys_candidates() -> None:
    assert assign([a_doubt()], [a_sighting("ours"), a_sighting("g1", 2)], {"ours"}) == {"r-1": ("g1",)}


def test_no_request_gets_more_generations_than_it_asked_for() -> None:
    sightings = [a_sighting(f"g{index}", index) for index in range(5)]
    assert assign([a_doubt(outputs=3)], sightings, ()) == {"r-1": ("g0", "g1", "g2")}


few = st.sampled_from
doubted = st.builds(
    lambda name, prompt, seed, *, marked: a_doubt(name, marked=marked, prompt=prompt, seed=seed),
    few("abc"),
    few(["x", "y", ["x"], None]),
    few([7, 7.0, 2**60, True, None, "7"]),
    marked=st.booleans(),
)
sighted = st.builds(
    lambda name, prompt, seed, after_s, **shown: a_sighting(name, after_s, prompt=prompt, seed=seed, **shown),
    few("abcdefgh"),
    few(["x", "y", ["x"], None]),
    few([7, 7.0, float(2**60), True, None, "7", float("inf")]),
    few([None, -100.0, 0.0]),
)


@given(
    st.lists(doubted, max_size=4, unique_by=lambda doubt: doubt.request.request_id),
    st.lists(sighted, max_size=8, unique_by=lambda sighting: sighting.generation_id),
)
def test_what_concerns_no_doubt_can_be_left_out_of_a_look(doubts: list[Doubt], sightings: list[Sighting]) -> None:
    kept = list(filter(concerning(doubts), sightings))
    assert assign(doubts, kept, ()) == assign(doubts, sightings, ())
    assert all(any(matches(doubt, sighting) for doubt in doubts) for sighting in kept)


def test_what_is_found_is_adopted() -> None:
    decision = decide(a_request(RequestState.IN_DOUBT), [FoundUpstream(("g0",)), succeeded("g0")], NOW)
    assert decision is not None
    assert names(decision) == [EventName.SUBMITTED, EventName.SUCCEEDED]


def test_the_outputs_that_are_not_found_are_lost_and_the_rest_goes_on() -> None:
    decision = decide(a_request(RequestState.IN_DOUBT, 3), [FoundUpstream(("g0",))], NOW)
    assert decision is not None
    assert names(decision) == [EventName.SUBMITTED, EventName.OUTPUT, EventName.OUTPUT]
    assert [output.status for output in decision.after.outputs] == ["queued", "failed", "failed"]
    end = decide(decision.after, [succeeded("g0")], NOW)
    assert end is not None
    assert data_status(end.after) == "partial"


def test_once_not_found_is_not_enough_and_twice_gives_it_back() -> None:
    once = decide(a_request(RequestState.IN_DOUBT), [NotFoundUpstream(1, 1)], NOW)
    assert once is not None
    assert (once.after.state, once.after.doubt_looks) == (RequestState.IN_DOUBT, 1)
    assert decide(once.after, [NotFoundUpstream(1, 1)], NOW) is None  # the same look, told again
    assert decide(once.after, [NotFoundUpstream(2, 2)], NOW) is None  # a look for another attempt
    twice = decide(once.after, [NotFoundUpstream(1, 2)], NOW)
    assert twice is not None
    assert (twice.after.state, twice.after.doubt_looks, twice.retry_at) == (RequestState.ACCEPTED, 0, NOW)


def test_a_new_doubt_begins_its_looks_anew() -> None:
    decision = decide(a_request(RequestState.SUBMITTING, doubt_looks=1), [OutcomeUnknown("reset")], NOW)
    assert decision is not None
    assert decision.after.doubt_looks == 0


def test_what_cannot_be_decided_in_time_fails_and_is_never_repeated() -> None:
    decision = decide(a_request(RequestState.IN_DOUBT), [Undecidable("no list"), NotFoundUpstream(1, 1)], NOW)
    assert decision is not None
    assert decision.after.state is RequestState.FAILED
    assert decision.after.error is not None
    assert decision.after.error.code is ErrorCode.OUTCOME_UNKNOWN


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.IN_DOUBT])
def test_only_a_request_in_doubt_is_touched(state: RequestState) -> None:
    for fact in (FoundUpstream(("g0",)), NotFoundUpstream(1, 1), Undecidable("late")):
        assert decide(a_request(state), [fact], NOW) is None


def test_an_adopted_output_that_failed_alone_says_the_hubs_words() -> None:
    decision = decide(a_request(RequestState.IN_DOUBT, 2), [FoundUpstream(("g0",))], NOW)
    assert decision is not None
    lost = decision.after.outputs[1]
    assert (lost.generation_id, lost.status) == (None, OutputStatus.FAILED)
