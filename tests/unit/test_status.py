"""Where is my video? Every state in plain words: who holds it, what it waits for, what comes next."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from service.cli.moments import clock, since, span, until
from service.cli.printable import printable
from service.cli.status.absent import Bus, explain_absent
from service.cli.status.explain import Explanation, Surroundings, explain
from service.cli.status.show import Report, document_of
from service.domain.errors import ErrorCode
from service.domain.states import Fault, Output, OutputStatus, RequestState, StopCause
from service.domain.stored import StoredEvent, StoredRequest
from tests.unit.builders import NOW, RECEIVED, a_request

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
LED = Surroundings(leader="host:7:ab")
ENDED = [state for state in RequestState if state.ended]


def stored(state: RequestState, /, *outputs: Output, row: dict[str, Any] | None = None, **of: Any) -> StoredRequest:
    """A request in a state: `row` is what its row says besides, `of` the request's own fields."""
    request = a_request(state)
    if state is RequestState.CANCELLING:
        outputs = outputs or (Output(0, "g0", OutputStatus.PROCESSING),)
    if state.ended:
        of.setdefault("finished_at", NOW - 5 * SECOND)
    columns: dict[str, Any] = {
        "request": msgspec.structs.replace(request, outputs=outputs or request.outputs, **of),
        "arrival": 1,
        "priority": 4,
        "deadline": NOW + DAY,
        "attempted_at": None,
        "claimed_by": None,
        "claim_expires_at": None,
        "next_attempt_at": None,
        "doubted_at": None,
    }
    return StoredRequest(**{**columns, **(row or {})})


def told(request: StoredRequest, *events: StoredEvent, around: Surroundings = LED) -> Explanation:
    """What is said of it now."""
    return explain(request, events, around, NOW)


@pytest.mark.parametrize("state", RequestState)
def test_each_state_says_where_it_is_and_what_it_waits_for_unless_it_has_ended(state: RequestState) -> None:
    found = told(stored(state))
    assert found.now.endswith(".")
    assert bool(found.waits_for) is not state.ended
    assert "None" not in f"{found}"


# -- waiting to be sent -----------------------------------------------------------------------------------------------


def test_a_fresh_request_waits_for_a_claim() -> None:
    found = told(stored(RequestState.ACCEPTED, attempts=0, received_at=NOW - 3 * SECOND))
    assert found == Explanation(
        "Accepted 11:59:57 UTC (3 s ago), not at the hub yet.",
        "It waits for a replica to claim it, in its turn. A replica that runs takes it within a second.",
    )


def test_one_that_waits_long_for_a_claim_says_what_may_keep_it() -> None:
    found = told(stored(RequestState.ACCEPTED, attempts=0, received_at=NOW - DAY))
    assert ["paused" in found.advice, "DROVER_MAX_IN_FLIGHT" in found.advice, "doctor" in found.advice] == [True] * 3


def test_a_back_off_says_until_when() -> None:
    found = told(stored(RequestState.ACCEPTED, attempts=2, row={"next_attempt_at": NOW + 12 * SECOND}))
    assert "2 attempt(s) did not reach it" in found.now
    assert "until 12:00:12 UTC (in 12 s)" in found.waits_for
    over = told(stored(RequestState.ACCEPTED, attempts=2, row={"next_attempt_at": NOW - SECOND}))
    assert "back-off" not in over.waits_for


def test_a_hub_that_wants_nothing_is_named() -> None:
    found = told(stored(RequestState.ACCEPTED), around=Surroundings("x", hub_wants_nothing_s=30))
    assert "The hub wants no POSTs for 30 s more" in found.waits_for


# -- being sent -------------------------------------------------------------------------------------------------------


def test_who_sends_it_is_named_with_the_attempt_and_the_claim() -> None:
    row = {"claimed_by": "pod-3:1:ab", "attempted_at": NOW - 2 * SECOND, "claim_expires_at": NOW + 28 * SECOND}
    found = told(stored(RequestState.SUBMITTING, attempts=2, row=row))
    assert found.now == "pod-3:1:ab is sending it to the hub: attempt 2, since 11:59:58 UTC (2 s ago)."
    assert "Its claim holds until 12:00:28 UTC (in 28 s)." in found.waits_for


def test_a_claim_that_ran_out_says_who_takes_over() -> None:
    found = told(stored(RequestState.SUBMITTING, row={"claim_expires_at": NOW - 4 * SECOND}))
    assert "ran out 11:59:56 UTC (4 s ago)" in found.waits_for
    assert "in doubt" in found.waits_for


def test_a_doubt_says_since_when_how_often_was_looked_and_when_it_is_given_up() -> None:
    fresh = told(stored(RequestState.IN_DOUBT, row={"doubted_at": NOW - 5 * SECOND}))
    assert "counts in 10 s" in fresh.waits_for
    found = told(stored(RequestState.IN_DOUBT, attempts=1, doubt_looks=1, row={"doubted_at": NOW - 20 * SECOND}))
    assert "In doubt since 11:59:40 UTC (20 s ago): the answer to attempt 1 was lost" in found.now
    assert ["1 of 2 complete looks" in found.waits_for, "outcome_unknown" in found.waits_for] == [True, True]


# -- at the hub -------------------------------------------------------------------------------------------------------


def test_what_is_at_the_hub_names_its_generations_and_how_they_stand() -> None:
    outputs = (Output(0, "g0", OutputStatus.SUCCEEDED, url="u"), Output(1, "g1", OutputStatus.PROCESSING))
    found = told(stored(RequestState.SUBMITTED, *outputs, submitted_at=RECEIVED))
    assert found.now == "At the hub since 11:59:00 UTC (60 s ago): 1 succeeded, 1 processing."
    assert ["g1" in found.waits_for, "g0" in found.waits_for] == [True, False]


def test_a_generation_that_the_hub_denies_is_told_with_its_end() -> None:
    found = told(stored(RequestState.SUBMITTED, Output(0, "g0", missing_since=NOW - 60 * SECOND)))
    assert "denied knowing g0 since 11:59:00 UTC; after 10 min of that it is lost" in found.waits_for


@pytest.mark.parametrize(
    ("cause", "why"), [(StopCause.CANCEL, "somebody cancelled it"), (StopCause.DEADLINE, "its deadline passed")]
)
def test_what_is_being_ended_says_why_and_when_it_is_looked_at_again(cause: StopCause, why: str) -> None:
    row = {"next_attempt_at": NOW + 9 * SECOND}
    found = told(stored(RequestState.CANCELLING, stop_cause=cause, stop_requested_at=RECEIVED, row=row))
    assert found.now == f"Being ended since 11:59:00 UTC (60 s ago), because {why}: 1 processing."
    assert "asks again at 12:00:09 UTC (in 9 s)" in found.waits_for


# -- ended ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ENDED)
def test_what_has_ended_says_when_and_why(state: RequestState) -> None:
    error = Fault(ErrorCode.UPSTREAM_FAILED, "The hub reported a failure.")
    found = told(stored(state, error=error))
    assert "11:59:55 UTC (5 s ago): upstream_failed, The hub reported a failure." in found.now


def test_an_end_that_is_not_published_yet_waits_for_the_relay() -> None:
    events = (
        StoredEvent("generation.accepted", 1, RECEIVED, published=True),
        StoredEvent("generation.succeeded", 3, NOW - 9 * SECOND, False, 4, NOW + 30 * SECOND),
    )
    found = told(stored(RequestState.SUCCEEDED), *events)
    assert "1 of its events wait for the relay; the first is generation.succeeded" in found.waits_for
    assert "could not be published 4 time(s), and is tried again at 12:00:30 UTC (in 30 s)" in found.waits_for
    fresh = told(stored(RequestState.SUCCEEDED), StoredEvent("generation.succeeded", 3, NOW, published=False))
    assert "host:7:ab, publishes it" in fresh.waits_for


# -- what is true of all ----------------------------------------------------------------------------------------------


def test_without_a_leader_every_request_that_waits_says_so() -> None:
    for state in RequestState:
        event = StoredEvent("generation.accepted", 1, RECEIVED, published=False)
        assert "Nobody leads" in told(stored(state), event, around=Surroundings()).advice
    assert told(stored(RequestState.SUCCEEDED), around=Surroundings()).advice == ""


def test_a_deadline_that_has_passed_is_told_until_it_is_acted_on() -> None:
    late = {"deadline": NOW - SECOND}
    assert "Its deadline was" in told(stored(RequestState.SUBMITTED, row=late)).waits_for
    stopped = stored(RequestState.CANCELLING, stop_cause=StopCause.DEADLINE, row=late)
    assert "Its deadline was" not in told(stopped).waits_for


# -- not there --------------------------------------------------------------------------------------------------------


def absent(*events: StoredEvent, early_cancel: bool = False, **bus: Any) -> Explanation:
    """What is said of an id that is not stored."""
    return explain_absent("r-1", events, Bus(**bus), NOW, early_cancel=early_cancel, retention_days=30)


def test_an_id_that_never_came_says_what_to_check() -> None:
    found = absent()
    assert found.now == "No request is stored under r-1."
    assert ["confirm" in found.advice, "generation.request" in found.advice, "30 days" in found.advice] == [True] * 3


def test_a_cancel_that_waits_is_told() -> None:
    assert "A cancel waits for it" in absent(early_cancel=True).now


def test_a_letter_in_quarantine_is_told_with_what_gives_it_back() -> None:
    found = absent(letters={"r-1": [("0123456789ab", "invalid_message")]})
    assert "0123456789ab (invalid_message)" in found.now
    assert "drover dead replay 0123456789ab" in found.advice


def test_a_rejected_message_is_told() -> None:
    found = absent(StoredEvent("generation.rejected", 1, RECEIVED, published=True))
    assert "was rejected 11:59:00 UTC" in found.now
    assert "may come again" in found.advice


def test_what_waits_on_the_bus_is_told_and_a_bus_that_is_away_too() -> None:
    assert "the 7 message(s) that wait" in absent(waiting=7, consumers=1).waits_for
    assert "no replica consumes" in absent(waiting=7).waits_for
    assert absent(told="RabbitMQ could not be reached").waits_for.endswith("RabbitMQ could not be reached")
    assert "9 more letters" in absent(unread=9).advice


# -- how it is printed ------------------------------------------------------------------------------------------------


def test_the_json_has_the_row_and_the_sentences() -> None:
    request = stored(RequestState.SUBMITTED, submitted_at=RECEIVED)
    document = document_of(Report("r-1", told(request), request, ()))
    assert (document["state"], document["found"], document["priority"]) == ("submitted", True, 4)
    assert document["outputs"] == msgspec.to_builtins(request.request.outputs)
    assert document_of(Report("r-2", Explanation("x"), None, ()))["found"] is False


def test_times_are_told_with_what_is_left_and_what_has_gone() -> None:
    assert [span(s) for s in (-1, 0, 119, 120, 7200, 200_000)] == ["0 s", "0 s", "119 s", "2 min", "2 h", "2 d"]
    assert clock(NOW - DAY, NOW) == "2030-01-30 12:00:00 UTC"
    assert (since(NOW, NOW), until(NOW + SECOND, NOW)) == ("12:00:00 UTC (0 s ago)", "12:00:01 UTC (in 1 s)")
    assert until(NOW - SECOND, NOW) == "11:59:59 UTC (1 s ago)"


def test_what_others_wrote_moves_no_cursor() -> None:
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
