"""What the stream does not say is found out, and cheaply."""

from __future__ import annotations

import asyncio

import pytest

from service.app import App
from service.sandbox import Faults, Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio
IN_FLIGHT = 200


async def test_a_gap_with_two_hundred_in_flight_costs_one_list_and_the_missed_ones(
    amqp_url: str, database_url: str
) -> None:
    slow = Sandbox(SandboxOptions(api_key=KEY, delay_s=4.0, jitter_s=2.0, render=False))
    async with slow, running(environment(amqp_url, database_url, slow.url)), Team(amqp_url) as team:
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": "x"}} for i in range(IN_FLIGHT)])
        await team.wait_for(lambda heard: sum(name_of(e) == "submitted" for e in heard.events) >= IN_FLIGHT)
        before = slow.ledger()["calls"]
        slow.faults = Faults(stream_refused=True)
        slow.cut_streams()
        heard_before = sum(name_of(event) == "succeeded" for event in team.events)
        await asyncio.sleep(5)  # the gap is the point
        missed = sum(g["status"] == "succeeded" for g in slow.ledger()["generations"]) - heard_before
        slow.faults = Faults()
        await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= IN_FLIGHT)
        after = slow.ledger()["calls"]
        assert len({event["subject"] for event in team.events if name_of(event) == "succeeded"}) == IN_FLIGHT
        assert after["list"] - before.get("list", 0) == 1
        fetched = after.get("get", 0) - before.get("get", 0)
        assert missed > 0
        # What ended between the count above and the stream's return was missed, too.
        assert missed <= fetched <= IN_FLIGHT - heard_before
        assert after["post"] == IN_FLIGHT


async def test_a_completion_that_comes_before_the_answer_to_its_post_is_not_lost(
    app: App, team: Team, hub: Sandbox
) -> None:
    hub.faults.answer_delay_s = 0.7
    started = asyncio.get_running_loop().time()
    await team.send({"request_id": "early", "input": {"prompt": "x"}})
    assert name_of(await team.end_of("early")) == "succeeded"
    assert asyncio.get_running_loop().time() - started < 2
    assert [name_of(event) for event in team.of("early")] == ["accepted", "submitted", "succeeded"]


async def test_what_ended_while_no_replica_ran_is_found_at_the_start(
    variables: dict[str, str], amqp_url: str, hub: Sandbox
) -> None:
    async with running(variables), Team(amqp_url) as team:
        await team.send({"request_id": "away", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
    async with asyncio.timeout(10):
        while hub.ledger()["generations"][0]["status"] != "succeeded":
            await asyncio.sleep(0.02)  # the sandbox tells its stream, and nobody listens
    async with Team(amqp_url) as team, running(variables):
        assert name_of(await team.end_of("away")) == "succeeded"


async def test_a_dropped_completion_is_found_by_the_sweep_at_the_interval(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults.events_dropped = 1.0
    often = environment(amqp_url, database_url, hub.url, DROVER_RECONCILE_INTERVAL_S="1")
    async with running(often), Team(amqp_url) as team:
        await team.send({"request_id": "dropped", "input": {"prompt": "x"}})
        assert name_of(await team.end_of("dropped")) == "succeeded"
