"""The gate: what closes it, for whom and for how long, and how it opens again."""

from __future__ import annotations

import pytest

from service.domain.gate import (
    FAILURES,
    PROBE_S,
    Gate,
    GatePolicy,
    Healthy,
    Held,
    Limited,
    Permit,
    Post,
    Reason,
    Signal,
    Unclear,
    Unreachable,
)

CONCURRENCY = 64
OPEN = Gate.opened(GatePolicy(CONCURRENCY))
WHOLE = [
    (Limited(5.0), Reason.LIMITED, 5.0),
    (Limited(), Reason.LIMITED, 1.0),
    (Unclear(5.0), Reason.LIMITED, 5.0),
    (Held(Reason.UNAUTHENTICATED), Reason.UNAUTHENTICATED, 0.5),
    (Held(Reason.UNPAID), Reason.UNPAID, 0.5),
    (Held(Reason.FORBIDDEN), Reason.FORBIDDEN, 0.5),
    (Held(Reason.FOREIGN), Reason.FOREIGN, 0.5),
]


def claimed(gate: Gate, places: int, now: float = 0.0, namespace: str | None = None) -> tuple[Gate, list[Post]]:
    """So many of what the gate permits are claimed, all of one namespace."""
    permit = gate.permit(now, places)
    assert permit is not None
    gate, ticket = gate.begun(permit)
    taken = min(places, permit.limit)
    return gate.returned(permit, ticket, permit.limit - taken, now), [Post(ticket, namespace)] * taken


def after(gate: Gate, *signals: Signal | None, now: float = 0.0, namespace: str | None = None) -> Gate:
    """One POST after the other, each with its outcome, all at one moment."""
    for signal in signals:
        gate, (post,) = claimed(gate, 1, now, namespace)
        gate = gate.ended(post, signal, now, 0.0)
    return gate


def widths(gate: Gate, now: float, answers: int) -> list[int]:
    """How many may go after each of so many healthy answers."""
    found = []
    for _ in range(answers):
        gate = after(gate, Healthy(), now=now)
        permit = gate.permit(now, 1000)
        assert permit is not None
        found.append(permit.limit)
    return found


def test_an_open_gate_lets_as_many_through_as_there_are_places() -> None:
    assert OPEN.permit(0.0, 1000) == Permit(CONCURRENCY)
    assert OPEN.permit(0.0, 3) == Permit(3)
    assert OPEN.permit(0.0, 0) is None
    gate, _ = claimed(OPEN, 60)
    assert gate.permit(0.0, 1000) == Permit(4)


@pytest.mark.parametrize(("signal", "reason", "seconds"), WHOLE)
def test_one_such_answer_closes_the_gate_for_everybody(signal: Signal, reason: Reason, seconds: float) -> None:
    gate = after(OPEN, signal)
    assert gate.closed is not None
    assert gate.closed.reason is reason
    assert gate.look_at() == seconds
    assert gate.permit(seconds - 0.01, 1000) is None
    assert gate.permit(seconds, 1000) == Permit(1)


@pytest.mark.parametrize(
    ("wait_s", "spread", "seconds"), [(0.0, 0.0, 1.0), (100.0, 0.0, 100.0), (100.0, 1.0, 125.0), (1e9, 0.0, 3600.0)]
)
def test_a_retry_after_is_kept_with_jitter_behind_it_and_within_an_hour(
    wait_s: float, spread: float, seconds: float
) -> None:
    gate, (post,) = claimed(OPEN, 1)
    assert gate.ended(post, Limited(wait_s), 0.0, spread).look_at() == seconds


def test_while_the_gate_is_closed_one_probe_goes_at_a_time_ever_more_rarely() -> None:
    gate, looks, now = after(OPEN, Held(Reason.UNAUTHENTICATED)), [], 0.0
    for _ in range(7):
        look_at = gate.look_at()
        assert look_at is not None
        looks.append(look_at - now)
        now = look_at
        gate, (post,) = claimed(gate, 1, now)
        assert gate.permit(now + 1000, 1000) is None  # the probe is under way
        assert gate.look_at() is None
        gate = gate.ended(post, Held(Reason.UNAUTHENTICATED), now, 1.0)
    assert looks == [0.5, 2, 4, 8, PROBE_S, PROBE_S, PROBE_S]  # the first with the least jitter, then with the most


def test_a_healthy_probe_opens_the_gate_for_two_and_each_healthy_answer_for_twice_as_many() -> None:
    gate = after(OPEN, Limited(1.0))
    assert widths(gate, 1.0, 7) == [2, 4, 8, 16, 32, 64, 64]


def test_a_probe_that_was_never_posted_leaves_the_next_its_place() -> None:
    gate = after(OPEN, Limited(1.0))
    assert after(gate, None, now=1.0).permit(1.0, 10) == Permit(1)


def test_a_claim_that_finds_nothing_gives_its_places_back() -> None:
    permit = Permit(64)
    gate, ticket = OPEN.begun(permit)
    assert gate.permit(0.0, 1000) is None
    assert gate.returned(permit, ticket, 64, 0.0) == OPEN


# -- the breaker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [Unreachable(), Unclear()])
def test_a_run_of_failures_closes_the_gate_and_a_healthy_answer_breaks_the_run(signal: Signal) -> None:
    assert after(OPEN, *[signal] * (FAILURES - 1)).closed is None
    assert after(OPEN, *[signal] * (FAILURES - 1), Healthy(), *[signal] * (FAILURES - 1)).closed is None
    closed = after(OPEN, *[signal] * FAILURES).closed
    assert closed is not None
    assert closed.reason is Reason.FAILING


def test_a_dead_hub_is_sent_no_more_posts_than_the_concurrency_before_the_gate_closes() -> None:
    gate, posts = claimed(OPEN, CONCURRENCY)
    sent = len(posts)
    while posts:
        gate = gate.ended(posts.pop(), Unclear(), 0.0, 0.0)
        if gate.permit(0.0, 1000) is not None:
            gate, more = claimed(gate, 1000)
            posts += more
            sent += len(more)
    assert sent == CONCURRENCY


def test_a_gate_that_has_just_opened_closes_at_the_second_failure() -> None:
    gate = after(OPEN, *[Unclear()] * FAILURES)
    gate = after(gate, Healthy(), now=1.0)
    assert after(gate, Unclear(), now=1.0).closed is None
    assert after(gate, Unclear(), Unclear(), now=1.0).closed is not None


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_a_small_replica_closes_at_as_many_failures_as_it_has_places(concurrency: int) -> None:
    gate = Gate.opened(GatePolicy(concurrency))
    assert after(gate, *[Unclear()] * (concurrency - 1)).closed is None
    assert after(gate, *[Unclear()] * concurrency).closed is not None


def test_probes_of_a_dead_hub_go_at_one_second_and_then_ever_more_rarely_up_to_a_minute() -> None:
    gate, now, looks = after(OPEN, *[Unreachable()] * FAILURES), 0.0, []
    for _ in range(8):
        look_at = gate.look_at()
        assert look_at is not None
        looks.append(look_at - now)
        now = look_at
        gate = after(gate, Unreachable(), now=now)
    assert looks == [0.5, 1, 2, 4, 8, 16, 30, 30]  # with the least jitter


# -- answers that come late -------------------------------------------------------------------------------------------


def test_a_healthy_answer_to_a_post_from_before_does_not_open_the_gate() -> None:
    gate, (early, late) = claimed(OPEN, 2)
    gate = gate.ended(early, Held(Reason.UNAUTHENTICATED), 0.0, 0.0)
    assert gate.ended(late, Healthy(), 0.1, 0.0) == gate


@pytest.mark.parametrize("signal", [Held(Reason.UNAUTHENTICATED), Unclear(), Unreachable()])
def test_the_like_of_what_closed_the_gate_closes_it_no_longer_and_never_again_once_it_is_open(signal: Signal) -> None:
    gate, posts = claimed(OPEN, CONCURRENCY)
    gate = gate.ended(posts.pop(), Held(Reason.UNAUTHENTICATED), 0.0, 0.0)
    assert gate.ended(posts.pop(), signal, 0.1, 0.0) == gate
    opened = after(gate, Healthy(), now=1.0)
    assert opened.closed is None
    for post in posts:
        opened = opened.ended(post, signal, 1.1, 0.0)
    assert opened.closed is None


def test_a_retry_after_counts_whenever_it_comes() -> None:
    gate, (first, second, third) = claimed(OPEN, 3)
    gate = gate.ended(first, Limited(2.0), 0.0, 0.0)
    gate = gate.ended(second, Limited(10.0), 0.1, 0.0)
    assert gate.look_at() == 10.1
    assert gate.ended(third, Limited(1.0), 0.2, 0.0).look_at() == 10.1
    opened = after(gate, Healthy(), now=10.1)
    late = opened.ended(third, Limited(5.0), 10.2, 0.0)
    assert late.look_at() == pytest.approx(15.2)


def test_what_others_were_told_counts_here_too() -> None:
    gate = OPEN.not_before(3.0, 0.0, 0.0)
    assert gate.closed is not None
    assert (gate.closed.reason, gate.look_at()) == (Reason.LIMITED, 3.0)
    assert gate.not_before(1.0, 1.0, 0.0).look_at() == 3.0


def test_what_others_were_told_while_a_probe_is_under_way_outlasts_its_healthy_answer() -> None:
    gate, (probe,) = claimed(OPEN.not_before(0.0, 0.0, 0.0), 1)
    gate = gate.not_before(3.0, 0.1, 0.0).ended(probe, Healthy(), 0.2, 0.0)
    assert gate.permit(3.0, CONCURRENCY) is None
    assert after(gate, Healthy(), now=3.1).closed is None


def test_a_claim_that_was_under_way_when_the_gate_closed_is_not_posted() -> None:
    gate, (first,) = claimed(OPEN, 1)
    permit = Permit(10)
    gate, ticket = gate.begun(permit)
    assert gate.lets_through(Post(ticket), 0.0)
    gate = gate.ended(first, Limited(1.0), 0.0, 0.0)
    assert not gate.lets_through(Post(ticket), 0.0)
    gate = gate.returned(permit, ticket, 9, 0.0).ended(Post(ticket), None, 0.0, 0.0)
    assert gate.permit(1.0, 10) == Permit(1)


def test_a_probe_whose_claim_was_under_way_when_more_time_was_asked_for_is_not_posted() -> None:
    gate, (first, second) = claimed(OPEN, 2)
    gate = gate.ended(first, Limited(1.0), 0.0, 0.0)
    gate, (probe,) = claimed(gate, 1, 1.0)
    assert gate.lets_through(probe, 1.0)
    gate = gate.ended(second, Limited(5.0), 1.0, 0.0)
    assert not gate.lets_through(probe, 1.1)


def test_the_latest_probe_says_what_there_is_to_mend() -> None:
    gate = after(OPEN, Held(Reason.UNAUTHENTICATED))
    gate = after(gate, Held(Reason.UNPAID), now=1.0)
    assert gate.closed is not None
    assert (gate.closed.reason, gate.closed.since) == (Reason.UNPAID, 0.0)


# -- namespaces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.UNPAID, Reason.FORBIDDEN])
def test_an_unpaid_or_forbidden_namespace_is_held_alone(reason: Reason) -> None:
    gate = after(OPEN, Held(reason), namespace="acme")
    assert gate.closed is None
    assert gate.permit(0.0, 10) == Permit(10, held=("acme",))
    assert (gate.shut_until("acme"), gate.shut_until("other"), gate.shut_until(None)) == (0.5, None, None)


@pytest.mark.parametrize("reason", [Reason.UNAUTHENTICATED, Reason.FOREIGN])
def test_a_wrong_key_or_address_concerns_every_namespace(reason: Reason) -> None:
    gate = after(OPEN, Held(reason), namespace="acme")
    assert gate.closed is not None
    assert gate.held == {}


def test_a_held_namespace_is_probed_with_one_of_its_own_while_the_others_go_on() -> None:
    gate = after(OPEN, Held(Reason.UNPAID), namespace="acme")
    assert gate.permit(0.5, 10) == Permit(1, only="acme")
    gate, (probe,) = claimed(gate, 1, 0.5, "acme")
    assert gate.permit(0.5, 10) == Permit(10, held=("acme",))
    gate = gate.ended(probe, Held(Reason.UNPAID), 0.5, 1.0)
    assert gate.look_at() == 2.5
    gate = after(gate, Healthy(), now=2.5, namespace="acme")
    assert gate.permit(2.5, 10) == Permit(10)


def test_a_held_namespace_for_which_nobody_waits_stops_nobody() -> None:
    gate = after(Gate.opened(GatePolicy(1)), Held(Reason.UNPAID), namespace="acme")
    permit = gate.permit(1.0, 1)
    assert permit == Permit(1, only="acme")
    gate, ticket = gate.begun(permit)
    gate = gate.returned(permit, ticket, 1, 1.0)
    assert gate.permit(1.0, 1) == Permit(1, held=("acme",))
    assert gate.look_at() == 2.0


def test_a_probe_of_a_namespace_that_was_never_posted_leaves_the_next_its_place() -> None:
    gate = after(OPEN, Held(Reason.UNPAID), namespace="acme")
    gate = after(gate, None, now=0.5, namespace="acme")
    assert gate.permit(0.5, 10) == Permit(1, only="acme")


def test_late_answers_neither_open_nor_prolong_the_hold_on_a_namespace() -> None:
    gate, posts = claimed(OPEN, 3, 0.0, "acme")
    gate = gate.ended(posts[0], Held(Reason.UNPAID), 0.0, 0.0)
    assert not gate.lets_through(posts[1], 0.0)
    assert gate.lets_through(Post(posts[1].ticket, "other"), 0.0)
    later = gate.ended(posts[1], Held(Reason.UNPAID), 0.1, 0.0).ended(posts[2], Healthy(), 0.2, 0.0)
    assert later.held == gate.held


def test_a_namespace_that_is_held_tells_nothing_of_the_gate_that_its_probe_came_through() -> None:
    gate = after(OPEN, Held(Reason.UNAUTHENTICATED))
    gate = after(gate, Held(Reason.UNPAID), now=1.0, namespace="acme")
    assert gate.permit(1.0, 10) == Permit(1, held=("acme",))
