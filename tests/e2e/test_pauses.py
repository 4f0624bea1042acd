"""A hub that wants nothing for a while: submission pauses, is probed, goes on; nothing is lost, nothing hammered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from service.app import App
from service.domain.gate import FAILURES, GatePolicy
from service.domain.retry import Backoff
from service.sandbox import Faults, Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.ports import free_port
from tests.support.replica import KEY, Process, environment, get, running

pytestmark = pytest.mark.asyncio
CONCURRENCY = 16
PROBE_S = 0.6
QUICK = GatePolicy(CONCURRENCY, probe=Backoff(PROBE_S, limit=PROBE_S), broken=Backoff(PROBE_S, limit=PROBE_S))
SMALL = {"DROVER_SUBMIT_CONCURRENCY": str(CONCURRENCY), "DROVER_DOUBT_GRACE_S": "1"}


def requests(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}, **fields} for i in range(count)]


async def eventually(true: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """The sandbox and the metrics have no signal to wait for."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


def metric(app: App, name: str, **labels: str) -> float | None:
    return app.metrics.registry.get_sample_value(name, labels)


def posts(hub: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.ledger()["posts"]
    return found


async def all_succeeded(team: Team, count: int, timeout_s: float = 30.0) -> None:
    """Each once, and with nothing in between that a requester should not see."""
    await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(count)), timeout_s)
    for i in range(count):
        assert [name_of(event) for event in team.of(f"r{i}")] == ["accepted", "submitted", "succeeded"]


def assert_one_probe_at_a_time(probes: Sequence[dict[str, Any]]) -> None:
    """Each after the answer to the one before, and after the pause between two."""
    for one, following in pairwise(probes):
        assert following["at"] - one["answered_at"] >= PROBE_S / 2


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthenticated"), (402, "unpaid"), (403, "forbidden")])
async def test_a_refused_key_or_account_pauses_submission_until_a_probe_is_taken(
    amqp_url: str, database_url: str, hub: Sandbox, status: int, reason: str
) -> None:
    hub.faults.post_status = status
    variables = environment(amqp_url, database_url, hub.url, **SMALL)
    async with running(variables, gate_policy=QUICK) as app, Team(amqp_url) as team:
        await team.send_many(requests(60))
        await eventually(lambda: metric(app, "drover_submission_paused", scope="all", reason=reason) == 1)
        await eventually(lambda: posts(hub)[-1]["at"] > posts(hub)[0]["at"] + 5 * PROBE_S)
        before = posts(hub)
        assert sum(post["at"] < before[0]["answered_at"] + PROBE_S / 2 for post in before) <= CONCURRENCY
        assert_one_probe_at_a_time([post for post in before if post["at"] > before[0]["answered_at"] + PROBE_S / 2])
        assert set(await app.store.count_by_state()) <= {"accepted", "submitting"}
        hub.faults.post_status = None
        await all_succeeded(team, 60)
        assert metric(app, "drover_submission_paused", scope="all", reason=reason) == 0
    assert len(hub.ledger()["generations"]) == 60


async def test_a_pause_is_one_line_in_the_log_and_a_detail_of_readiness_and_says_what_to_mend(
    variables: dict[str, str], amqp_url: str, hub: Sandbox
) -> None:
    hub.faults.post_status = 401
    async with Process(variables) as drover:
        port = await drover.ready()
        async with Team(amqp_url) as team:
            await team.send_many(requests(30))
            await drover.logged("submission.paused")
            status, body = await get(f"http://127.0.0.1:{port}/readyz")
            assert status == 200
            (paused,) = json.loads(body)["paused"]
            assert (paused["scope"], paused["reason"]) == ("all", "unauthenticated")
            assert "OXEN_API_KEY" in paused["remedy"]
            await eventually(lambda: posts(hub)[-1]["at"] > posts(hub)[0]["at"] + 1)
            hub.faults.post_status = None
            await all_succeeded(team, 30)
        status, body = await get(f"http://127.0.0.1:{port}/readyz")
        assert (status, json.loads(body)["paused"]) == (200, [])
    told = [line for line in drover.lines if line["event"].startswith("submission.")]
    assert [line["event"] for line in told] == ["submission.paused", "submission.resumed"]
    assert "OXEN_API_KEY" in told[0]["remedy"]
    assert told[1]["after_s"] > 0.5


async def test_a_deadline_passes_while_submission_is_paused(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    hub.faults.post_status = 402
    async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
        soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        await team.send({"request_id": "late", "input": {"prompt": "x"}, "deadline": soon})
        assert name_of(await team.end_of("late")) == "expired"
    assert hub.ledger()["generations"] == []


async def test_a_namespace_without_credits_pauses_alone(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    hub.faults = Faults(namespaces=("paid",))
    variables = environment(amqp_url, database_url, hub.url, DROVER_TARGET_NAMESPACES="paid,unpaid", **SMALL)
    async with running(variables, gate_policy=QUICK) as app, Team(amqp_url) as team:
        await team.send_many([{**body, "target_namespace": "unpaid"} for body in requests(40)])
        scope = "namespace:unpaid"
        await eventually(lambda: metric(app, "drover_submission_paused", scope=scope, reason="forbidden") == 1)
        await team.send({"request_id": "own", "input": {"prompt": "x"}})
        await team.send({"request_id": "paid", "input": {"prompt": "x"}, "target_namespace": "paid"})
        await asyncio.gather(team.end_of("own"), team.end_of("paid"))
        refused = [post for post in posts(hub) if post["status"] == 403]
        await eventually(lambda: len(posts(hub)) >= len(refused) + 6)
        first = posts(hub)[0]["answered_at"]
        later = [post for post in posts(hub) if post["status"] == 403 and post["at"] > first + PROBE_S / 2]
        assert len(later) >= 2
        assert_one_probe_at_a_time(later)
        assert metric(app, "drover_submission_paused", scope="all", reason="forbidden") in (None, 0)
        hub.faults = Faults()
        await all_succeeded(team, 40)
    assert len(hub.ledger()["generations"]) == 42


# -- Retry-After ------------------------------------------------------------------------------------------------------


async def test_a_retry_after_holds_for_everybody_in_every_replica(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(post_status=429, retry_after="3")
    variables = environment(amqp_url, database_url, hub.url)
    async with running(variables), running(variables), Team(amqp_url) as team:
        await team.send({"request_id": "r0", "input": {"prompt": "x"}})
        await eventually(lambda: bool(posts(hub)) and posts(hub)[0]["answered_at"] is not None)
        await _written(database_url)
        hub.faults = Faults()
        await team.send_many(requests(40)[1:])
        await all_succeeded(team, 40)
        limited, *others = posts(hub)
        assert limited["status"] == 429
        assert min(post["at"] for post in others) >= limited["answered_at"] + 3
    assert len(hub.ledger()["generations"]) == 40


async def _written(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(5):
            while await connection.fetchval("select count(*) from limits where not_before > now()") == 0:
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def test_after_a_429_the_flow_begins_anew_and_small(amqp_url: str, database_url: str) -> None:
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=False)) as hub:
        hub.faults = Faults(post_status=429, retry_after="1", answer_delay_s=0.3)
        variables = environment(amqp_url, database_url, hub.url)
        async with running(variables) as app, Team(amqp_url) as team:
            await team.send_many(requests(40))
            await eventually(lambda: metric(app, "drover_submission_paused", scope="all", reason="limited") == 1)
            await asyncio.sleep(0.4)  # of the second that the hub asked for: what was under way is turned away, too
            hub.faults = Faults(answer_delay_s=0.3)
            await all_succeeded(team, 40)
        taken = [post for post in posts(hub) if post["status"] != 429]
        answered = taken[0]["answered_at"]
        assert sum(post["at"] < answered for post in taken) == 1
        assert sum(post["at"] < answered + 0.2 for post in taken) <= 3
        assert taken[-1]["at"] - taken[0]["at"] < 10


# -- the breaker ------------------------------------------------------------------------------------------------------


async def test_a_storm_of_502_leaves_few_doubts_and_is_probed_not_hammered(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(posts_failed=1.0)
    variables = environment(amqp_url, database_url, hub.url, **SMALL)
    async with running(variables, gate_policy=QUICK) as app, Team(amqp_url) as team:
        await team.send_many(requests(80))
        await eventually(lambda: metric(app, "drover_breaker_open") == 1)
        began = posts(hub)[0]["at"]
        await eventually(lambda: posts(hub)[-1]["at"] > began + 4 * PROBE_S)
        storm = posts(hub)
        assert sum(post["at"] < began + PROBE_S / 2 for post in storm) <= CONCURRENCY
        assert_one_probe_at_a_time([post for post in storm if post["at"] > began + PROBE_S])
        assert (await app.store.count_by_state()).get("in_doubt", 0) <= len(storm)
        hub.faults = Faults()
        await all_succeeded(team, 80, 60)
        assert metric(app, "drover_breaker_open") == 0
    assert len(hub.ledger()["generations"]) == 80


async def test_a_hub_that_is_not_there_leaves_no_doubts_and_gets_all_once_it_is(
    amqp_url: str, database_url: str
) -> None:
    port = free_port()
    variables = environment(amqp_url, database_url, f"http://127.0.0.1:{port}", **SMALL)
    async with running(variables, gate_policy=QUICK) as app, Team(amqp_url) as team:
        await team.send_many(requests(80))
        await eventually(lambda: metric(app, "drover_breaker_open") == 1)
        tried = metric(app, "drover_submit_duration_seconds_count", outcome="not_sent")
        assert tried is not None
        assert FAILURES <= tried <= CONCURRENCY + 2
        assert set(await app.store.count_by_state()) <= {"accepted", "submitting"}
        async with Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=False, port=port)) as hub:
            await all_succeeded(team, 80, 60)
            assert len(hub.ledger()["generations"]) == 80
