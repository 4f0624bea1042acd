"""The schedule and the traffic: repeatable by their seed, and as much of everything as was asked for."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.schedule import FaultKind, Options, schedule
from tests.chaos.traffic import RESEND_WITHIN_S, body_at, traffic

seeds = st.integers(0, 2**32)
plans = st.builds(
    Options,
    seconds=st.floats(10, 600),
    quiet_s=st.floats(0, 5),
    kills=st.integers(0, 20),
    freezes=st.integers(0, 5),
    broker_kills=st.integers(0, 4),
    database_restarts=st.integers(0, 4),
)


@given(seeds, plans)
def test_the_same_seed_gives_the_same_schedule(seed: int, options: Options) -> None:
    assert schedule(seed, options) == schedule(seed, options)


def test_another_seed_gives_another_schedule() -> None:
    assert schedule(1, Options()) != schedule(2, Options())


@given(seeds, plans)
def test_every_fault_falls_into_the_run_as_often_as_asked_and_in_order(seed: int, options: Options) -> None:
    faults = schedule(seed, options)
    assert faults == sorted(faults)
    assert all(options.quiet_s <= fault.at_s <= options.seconds for fault in faults)
    counts = Counter(fault.kind for fault in faults)
    assert counts[FaultKind.KILL_LEADER] + counts[FaultKind.KILL_FOLLOWER] == options.kills
    assert counts[FaultKind.KILL_LEADER] >= counts[FaultKind.KILL_FOLLOWER]
    assert counts[FaultKind.FREEZE_LEADER] == options.freezes
    assert counts[FaultKind.KILL_BROKER] == options.broker_kills
    assert counts[FaultKind.RESTART_DATABASE] == options.database_restarts


@given(seeds)
def test_a_freeze_outlasts_the_lease_and_the_stream_is_cut_every_few_seconds(seed: int) -> None:
    options = Options()
    faults = schedule(seed, options)
    assert all(fault.for_s > 6 for fault in faults if fault.kind is FaultKind.FREEZE_LEADER)
    cuts = [fault.at_s for fault in faults if fault.kind is FaultKind.CUT_STREAM]
    least, most = options.cut_every_s
    assert all(least - 0.01 <= later - earlier <= most + 0.01 for earlier, later in pairwise(cuts))


@given(seeds, plans)
def test_servers_are_not_killed_twice_at_a_time(seed: int, options: Options) -> None:
    for kind in (FaultKind.KILL_BROKER, FaultKind.RESTART_DATABASE):
        moments = [fault.at_s for fault in schedule(seed, options) if fault.kind is kind]
        stretch = (options.seconds - options.quiet_s) / max(1, len(moments))
        assert all(later - earlier >= 0.39 * stretch for earlier, later in pairwise(moments))


@given(seeds, st.integers(0, 300))
@settings(max_examples=20)
def test_the_same_seed_gives_the_same_traffic_with_ids_of_its_own(seed: int, count: int) -> None:
    asked = traffic(seed, count, 60.0)
    assert asked == traffic(seed, count, 60.0)
    assert len({request.request_id for request in asked}) == count
    assert all(0 <= request.at_s[0] <= 60 and request.at_s[-1] <= 60 + RESEND_WITHIN_S for request in asked)


def test_a_deadline_is_counted_from_the_sending_and_a_cancel_comes_about_its_request() -> None:
    asked = traffic(7, 5000, 60.0)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    for request in asked:
        deadline = json.loads(body_at(request, now)).get("deadline")
        assert (deadline is None) == (request.deadline_s is None) == ("expired" not in request.ends)
        if deadline is not None and request.deadline_s is not None:
            assert datetime.fromisoformat(deadline) == now + timedelta(seconds=request.deadline_s)
        assert (request.cancel_at_s is None) == ("cancelled" not in request.ends)
    early = [r for r in asked if r.cancel_at_s is not None and r.cancel_at_s < r.at_s[0]]
    assert 0 < len(early) < sum(request.cancel_at_s is not None for request in asked)


def test_only_twins_share_a_prompt_and_a_body_says_what_is_expected() -> None:
    asked = traffic(7, 5000, 60.0)
    shared = Counter(request.prompt for request in asked)
    assert all(count == 1 or "twins" in prompt for prompt, count in shared.items())
    assert {end for request in asked for end in request.ends} == {
        "succeeded",
        "failed",
        "rejected",
        "cancelled",
        "expired",
    }
    assert max(map(len, (request.at_s for request in asked))) == 2
    for request in asked:
        body = json.loads(request.body)
        assert body["request_id"] == request.request_id
        assert body["input"]["prompt"] == request.prompt
        if "rejected" not in request.ends:
            assert body.get("num_generations", 1) == request.num_generations
