"""The checker finds what is planted, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.checker import check
from tests.chaos.evidence import (
    Bought,
    EventRow,
    Evidence,
    Heard,
    Incident,
    LogLine,
    OutputRow,
    RequestRow,
    StreamSpan,
)
from tests.chaos.findings import FROZEN, LATE
from tests.chaos.schedule import FaultKind
from tests.chaos.traffic import Asked

T = 1_000_000.0
Change = Callable[[Evidence], Evidence]


def heard(request_id: str, sequence: int, name: str, **changes: object) -> Heard:
    event = Heard(f"{request_id}/{sequence}", request_id, name, sequence, T + sequence, b"body")
    if name == "succeeded":
        number = request_id.removeprefix("r")
        event = replace(event, outputs=((f"g{number}", "succeeded", f"https://files.test/g{number}.mp4"),))
    return replace(event, **changes)  # type: ignore[arg-type]


def line(event: str, at: float, replica: str = "replica-1", **fields: object) -> LogLine:
    return LogLine(replica, at, event, "info", fields)


def good(count: int = 3) -> Evidence:
    """A run in which everything was right: r0, r1, ..."""
    names = ("accepted", "submitted", "succeeded")
    ids = [f"r{number}" for number in range(count)]
    return Evidence(
        asked=[Asked(key, f"clip {key}", 1, frozenset({"succeeded"}), "film", (0.0,), b"{}") for key in ids],
        confirmed=frozenset(ids),
        heard=[heard(key, sequence, name) for key in ids for sequence, name in enumerate(names, 1)],
        bought=[Bought(f"g{n}", f"clip r{n}", "succeeded", T, T + 2) for n in range(count)],
        requests=[RequestRow(key, "succeeded", 3, 1, ended=True) for key in ids],
        outputs=[OutputRow(f"r{n}", f"g{n}", "succeeded") for n in range(count)],
        events=[
            EventRow(f"{key}/{sequence}", key, sequence, name, stored=True, published=True)
            for key in ids
            for sequence, name in enumerate(names, 1)
        ],
        streams=[StreamSpan(T, T + 5), StreamSpan(T + 5, None)],
        log=[line("leadership.taken", T - 50)],
        exit_codes={"replica-1": 0},
        ended_at=T + 100,
    )


def kinds(evidence: Evidence) -> set[str]:
    return {finding.kind for finding in check(evidence).findings}


def without_end(evidence: Evidence) -> Evidence:
    return replace(evidence, heard=[event for event in evidence.heard if event.event_id != "r1/3"])


def more_heard(*events: Heard) -> Change:
    return lambda evidence: replace(evidence, heard=[*evidence.heard, *events])


def end_of_r1(**changes: object) -> Change:
    def change(evidence: Evidence) -> Evidence:
        told = [replace(e, **changes) if e.event_id == "r1/3" else e for e in evidence.heard]  # type: ignore[arg-type]
        return replace(evidence, heard=told)

    return change


def row_of_r1(**changes: object) -> Change:
    def change(evidence: Evidence) -> Evidence:
        rows = [replace(r, **changes) if r.request_id == "r1" else r for r in evidence.requests]  # type: ignore[arg-type]
        return replace(evidence, requests=rows)

    return change


def test_a_run_without_faults_has_no_findings() -> None:
    verdict = check(good())
    assert not verdict.findings
    assert not verdict.excused
    assert verdict.counts["requests asked for"] == verdict.counts["generations in the hub's ledger"] == 3


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (without_end, "lost"),
        (more_heard(heard("r1", 4, "succeeded")), "several ends"),
        (more_heard(heard("r1", 3, "succeeded", event_id="other")), "several ends"),
        (end_of_r1(name="failed", outputs=()), "wrong end"),
        (end_of_r1(sequence=4), "sequence gap"),
        (more_heard(heard("r1", 3, "succeeded", digest=b"another")), "changed event"),
        (more_heard(heard("r9", 1, "accepted")), "foreign event"),
        (end_of_r1(outputs=(("g2", "succeeded", "https://files.test/g2.mp4"),)), "foreign output"),
        (end_of_r1(outputs=(("g1", "succeeded", "https://files.test/g2.mp4"),)), "foreign output"),
        (end_of_r1(outputs=(("g1", "succeeded", None),)), "foreign output"),
        (end_of_r1(outputs=(("g1", "failed", None),)), "outputs"),
        (end_of_r1(outputs=()), "outputs"),
        (end_of_r1(outputs=((None, "failed", None),)), "outputs"),
        (row_of_r1(state="in_doubt", ended=False), "unresolved"),
        (row_of_r1(sequence=4), "unheard"),
        (lambda e: replace(e, outputs=[*e.outputs[:2], OutputRow("r2", "g2", "queued")]), "unresolved"),
        (lambda e: replace(e, events=[replace(e.events[0], published=False), *e.events[1:]]), "unresolved"),
        (lambda e: replace(e, confirmed=frozenset({"r0", "r1"})), "not sent"),
        (lambda e: replace(e, bought=e.bought[:2]), "not bought"),
        (lambda e: replace(e, bought=[*e.bought, Bought("g9", "clip r9", "succeeded", T, T)]), "bought for nobody"),
        (lambda e: replace(e, quarantined=1), "quarantined"),
        (lambda e: replace(e, exit_codes={"replica-1": 1}), "exit"),
        (lambda e: replace(e, stderr=("replica-1: Traceback",)), "stderr"),
        (lambda e: replace(e, log=[*e.log, line("component.broke", T)]), "logged"),
        (lambda e: replace(e, log=[*e.log, replace(line("new.thing", T), level="error")]), "logged"),
    ],
)
def test_what_is_planted_is_found(planted: Change, kind: str) -> None:
    assert kind in kinds(planted(good()))


def test_a_lost_request_is_told_with_how_far_it_came() -> None:
    def told(*changes: Change) -> str:
        evidence = without_end(good())
        for change in changes:
            evidence = change(evidence)
        return next(finding.detail for finding in check(evidence).findings if finding.kind == "lost")

    assert told() == "it is succeeded, and its events are marked as published"
    assert told(row_of_r1(state="submitted", ended=False)) == "it is submitted"
    assert told(lambda e: replace(e, requests=())) == "confirmed by the broker, and not in the database"
    unpublished = [EventRow("r1/3", "r1", 3, "succeeded", stored=True, published=False)]
    assert "not all published" in told(lambda e: replace(e, events=unpublished))


def test_events_heard_again_are_no_fault_but_an_order_that_was_not_kept_is() -> None:
    evidence = good()
    again = [event for event in evidence.heard if event.request_id == "r1"]
    assert kinds(more_heard(*again, *again)(evidence)) == set()
    turned = [event for event in evidence.heard if event.request_id != "r1"] + again[::-1]
    assert kinds(replace(evidence, heard=turned)) == {"order"}


def test_a_generation_that_two_requests_name_is_found() -> None:
    both = [replace(request, prompt="twins") for request in good().asked]
    bought = [replace(generation, prompt="twins") for generation in good().bought]
    evidence = replace(good(), asked=both, bought=bought)
    assert kinds(evidence) == set()
    assert "outputs" in kinds(end_of_r1(outputs=(("g2", "succeeded", "https://files.test/g2.mp4"),))(evidence))


def test_a_generation_in_flight_at_the_hub_that_nobody_owns_is_found() -> None:
    stray = Bought("stray", "clip r1", "processing", T, None)
    assert {"unresolved", "bought twice"} <= kinds(replace(good(), bought=[*good().bought, stray]))


# -- paid for twice ---------------------------------------------------------------------------------------------------

GIVEN_UP = line("request.requeued", T + 20, request_id="r1", was="in_doubt", reason="not at the hub in 2 listings")
FREEZE = Incident(FaultKind.FREEZE_LEADER, T + 1, T + 21, "replica-1")


def bought_twice(extra_at: float, log: list[LogLine], *, adopted_at: float = T + 22, freeze: bool = False) -> Evidence:
    """r1's generation was posted at `adopted_at`, another one that nobody owns at `extra_at`."""
    evidence = good()
    bought = [*evidence.bought, Bought("extra", "clip r1", "succeeded", extra_at, extra_at + 2)]
    bought[1] = replace(bought[1], posted_at=adopted_at)
    return replace(evidence, bought=bought, log=[*evidence.log, *log], incidents=[FREEZE] if freeze else [])


def test_a_double_purchase_without_a_doubt_is_found() -> None:
    verdict = check(bought_twice(T + 1, []))
    assert {finding.kind for finding in verdict.findings} == {"bought twice"}
    assert verdict.excused == ()


def test_a_double_purchase_that_the_listings_should_have_shown_is_found() -> None:
    verdict = check(bought_twice(T + 10, [GIVEN_UP]))
    assert {finding.kind for finding in verdict.findings} == {"bought twice"}
    assert "did not find it" in verdict.findings[0].detail


def test_a_post_of_a_process_that_was_frozen_is_excused_with_its_proof() -> None:
    unowned = line("generation.unowned", T + 21.6, request_id="r1", generation_id=["extra"])
    verdict = check(bought_twice(T + 21.5, [GIVEN_UP, unowned], adopted_at=T + 20.5, freeze=True))
    assert verdict.findings == ()
    (excused,) = verdict.excused
    assert (excused.cause, excused.generation_id) == (FROZEN, "extra")
    assert "replica-1 frozen" in excused.proof
    assert "replica-1 logged generation.unowned" in excused.proof


def test_a_freeze_that_was_over_long_before_excuses_nothing_as_frozen() -> None:
    verdict = check(bought_twice(T + 40, [GIVEN_UP], freeze=True, adopted_at=T + 30))
    assert [excused.cause for excused in verdict.excused] == [LATE]


def test_a_hub_later_than_the_grace_is_excused_and_counted_apart() -> None:
    verdict = check(bought_twice(T + 21, [GIVEN_UP]))
    assert verdict.findings == ()
    assert [excused.cause for excused in verdict.excused] == [LATE]
    assert verdict.counts[f"bought twice, {LATE}"] == 1
    assert verdict.counts[f"bought twice, {FROZEN}"] == 0


def test_an_event_that_names_the_excused_generation_is_found() -> None:
    twice = bought_twice(T + 21, [GIVEN_UP])
    told = end_of_r1(outputs=(("extra", "succeeded", "https://files.test/extra.mp4"),))(twice)
    assert "outputs" in kinds(told)


def test_more_outputs_than_asked_for_are_found_even_when_all_are_owned() -> None:
    evidence = bought_twice(T + 21, [GIVEN_UP])
    owned = replace(evidence, outputs=[*evidence.outputs, OutputRow("r1", "extra", "succeeded")])
    assert "bought twice" in kinds(owned)


@pytest.mark.parametrize("event", ["generation.unowned", "generation.surplus_cancelled"])
@pytest.mark.parametrize("told", ["g1", ["g1"]])
def test_a_generation_of_ours_that_was_taken_for_nobodys_is_found(event: str, told: object) -> None:
    evidence = replace(good(), log=[*good().log, line(event, T, generation_id=told)])
    assert kinds(evidence) == {"wrongly told"}


def cancelled_r1(*log: LogLine) -> Evidence:
    """r1 was cancelled before drover knew of anything bought, and the hub has a generation for it."""
    evidence = good()
    return replace(
        evidence,
        asked=[replace(r, ends=frozenset({"succeeded", "cancelled"}), least=0) for r in evidence.asked],
        heard=[replace(e, name="cancelled", outputs=()) if e.event_id == "r1/3" else e for e in evidence.heard],
        outputs=[row for row in evidence.outputs if row.request_id != "r1"],
        log=[*evidence.log, *log],
    )


def test_what_was_cancelled_may_have_been_bought_or_not() -> None:
    evidence = cancelled_r1()
    assert kinds(replace(evidence, bought=[g for g in evidence.bought if g.prompt != "clip r1"])) == set()


def test_a_generation_of_a_cancelled_request_that_nobody_owns_is_found() -> None:
    assert kinds(cancelled_r1()) == {"unowned"}


def test_one_that_came_after_the_listings_had_given_the_cancelled_request_up_is_excused() -> None:
    ended = line("request.cancelled", T + 1, request_id="r1", was="in_doubt", reason="not at the hub in 2 listings")
    verdict = check(cancelled_r1(ended))
    assert not verdict.findings
    assert [excused.cause for excused in verdict.excused] == [LATE]


# -- streams ----------------------------------------------------------------------------------------------------------


def with_streams(*spans: StreamSpan, **changes: object) -> Evidence:
    return replace(good(), streams=spans, **changes)  # type: ignore[arg-type]


def test_two_streams_at_a_time_are_found() -> None:
    assert kinds(with_streams(StreamSpan(T, T + 9), StreamSpan(T + 4, T + 20))) == {"two streams"}
    assert kinds(with_streams(StreamSpan(T, T + 4), StreamSpan(T + 4, T + 9))) == set()


def test_two_streams_are_allowed_while_one_is_frozen_and_a_second_after_it_wakes() -> None:
    spans = StreamSpan(T, T + 22), StreamSpan(T + 8, None)
    assert kinds(with_streams(*spans, incidents=[FREEZE])) == set()
    later = StreamSpan(T, T + 24), StreamSpan(T + 8, None)
    assert kinds(with_streams(*later, incidents=[FREEZE])) == {"two streams"}


def test_two_streams_are_allowed_for_a_moment_at_a_hand_over() -> None:
    taken = [line("leadership.taken", T + 8)]
    assert kinds(with_streams(StreamSpan(T, T + 9), StreamSpan(T + 8, None), log=taken)) == set()
    assert kinds(with_streams(StreamSpan(T, T + 13), StreamSpan(T + 8, None), log=taken)) == {"two streams"}
