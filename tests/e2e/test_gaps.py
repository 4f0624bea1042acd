"""What the stream does not say is found out, and cheaply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from service.domain.facts import OutputReported
from service.hub.client import HubClient
from service.sandbox import Faults, Sandbox, SandboxOptions
from tests.support import crowd
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment, running
from tests.support.sql import connected

pytestmark = pytest.mark.asyncio
Waits = Callable[[str], Awaitable[None]]
IN_FLIGHT = 200
MANY, MISSED = 20_000, 50
SWEPT_WITHIN_S = 10.0
PEAK_BYTES = 120 * 1024 * 1024  # a replica without work has 80 MB; the list has 20, and 60 more once it is parsed


async def opened(hub: Sandbox, count: int) -> None:
    """Until the stream has been opened so many times."""
    async with asyncio.timeout(20):
        while len(hub.ledger()["stream_log"]) < count:
            await asyncio.sleep(0.01)  # the sandbox has no signal for a stream


async def test_a_gap_with_two_hundred_in_flight_costs_one_list_and_the_missed_ones(
    amqp_url: str, database_url: str
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    async with hub, running(environment(amqp_url, database_url, hub.url)) as app, Team(amqp_url) as team:
        async with asyncio.timeout(20):
            while not app.metrics.registry.get_sample_value("drover_sweep_duration_seconds_count"):
                await asyncio.sleep(0.02)  # until the stream is open: what was submitted before is fetched besides
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": "x"}} for i in range(IN_FLIGHT)])
        await team.wait_for(lambda heard: sum(name_of(e) == "submitted" for e in heard.events) >= IN_FLIGHT)
        generations = list(hub.hub.ledger.generations.values())
        before = hub.hub.ledger.calls.copy()
        hub.faults = Faults(stream_refused=True)
        hub.cut_streams()
        crowd.end(hub, generations[:MISSED])
        hub.faults = Faults()
        await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= MISSED)
        crowd.end(hub, generations[MISSED:])  # which the stream tells
        await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= IN_FLIGHT)
    assert len({event["subject"] for event in team.events if name_of(event) == "succeeded"}) == IN_FLIGHT
    calls = hub.hub.ledger.calls
    assert (calls["list"] - before["list"], calls["get"] - before["get"]) == (1, MISSED)
    assert calls["post"] == IN_FLIGHT


async def test_with_twenty_thousand_in_flight_a_start_and_a_gap_cost_one_list_each_and_what_was_missed(
    amqp_url: str, database_url: str
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    async with hub, Team(amqp_url) as team:
        generations = await crowd.in_flight(hub, database_url, MANY)
        calls = hub.hub.ledger.calls
        async with Process(environment(amqp_url, database_url, hub.url)) as drover:
            first = await drover.logged("sweep.done", 60)
            assert (first["in_flight"], first["missing"]) == (MANY, 0)
            assert (calls["list"], calls["get"]) == (1, 0)

            hub.faults = Faults(stream_refused=True)
            hub.cut_streams()
            await drover.logged("stream.lost")
            crowd.end(hub, generations[:MISSED])
            hub.faults = Faults()
            await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= MISSED, 60)
            second = await drover.logged_where(
                lambda line: line["event"] == "sweep.done" and line["timestamp"] > first["timestamp"], 60
            )
            peak = crowd.peak_bytes(drover.process.pid)
    assert {event["subject"] for event in team.events} == {f"crowd-{n}" for n in range(1, MISSED + 1)}
    assert (second["in_flight"], second["missing"]) == (MANY, MISSED)
    assert calls["list"] == 2
    assert calls["get"] == MISSED
    assert max(first["seconds"], second["seconds"]) < SWEPT_WITHIN_S
    assert peak < PEAK_BYTES


async def test_a_completion_that_comes_before_the_answer_to_its_post_waits_for_no_interval(
    amqp_url: str, database_url: str
) -> None:
    quick = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.2, render=False))
    rarely = {"DROVER_RECONCILE_INTERVAL_S": "60"}
    async with quick, running(environment(amqp_url, database_url, quick.url, **rarely)), Team(amqp_url) as team:
        quick.faults.answer_delay_s = 0.7
        started = asyncio.get_running_loop().time()
        await team.send({"request_id": "early", "input": {"prompt": "x"}})
        assert name_of(await team.end_of("early")) == "succeeded"
        assert asyncio.get_running_loop().time() - started < 2
        assert [name_of(event) for event in team.of("early")] == ["accepted", "submitted", "succeeded"]
        (generation,), (post,) = quick.ledger()["generations"], quick.ledger()["posts"]
        assert generation["ended_at"] < post["answered_at"]
        assert quick.ledger()["calls"]["get"] == 0


async def test_a_completion_that_comes_before_the_answer_to_a_drains_last_post_waits_for_no_interval(
    amqp_url: str, database_url: str
) -> None:
    quick = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=False))
    async with quick, Team(amqp_url) as team, AsyncExitStack() as replicas:
        slowly = {"DROVER_RECONCILE_INTERVAL_S": "60", "DROVER_SUBMIT_CONCURRENCY": "1"}
        variables = environment(amqp_url, database_url, quick.url, **slowly)
        leader = await replicas.enter_async_context(running(variables))
        async with asyncio.timeout(20):
            while not leader.leadership.leading:
                await asyncio.sleep(0.02)
        async with running(variables):
            quick.faults.answer_delay_s = 1.0
            await team.send_many([{"request_id": name, "input": {"prompt": name}} for name in ("one", "other")])
            async with asyncio.timeout(20):  # each replica POSTs one of them
                while [each["status"] for each in quick.ledger()["generations"]] != ["succeeded"] * 2:
                    await asyncio.sleep(0.02)
            assert not any(post["answered_at"] for post in quick.ledger()["posts"])
        quick.faults.answer_delay_s = 0.0
        for name in ("one", "other"):
            assert name_of(await team.end_of(name, 10)) == "succeeded"
    assert quick.ledger()["calls"]["post"] == 2


class SlowClient(HubClient):
    """Asks the hub as the service does; what single questions wait for, before or after, the test decides."""

    def __init__(self, url: str, *, before: Waits | None = None, after: Waits | None = None) -> None:
        super().__init__(url, KEY, connections=8, submit_timeout_s=20)
        self._before, self._after = before, after

    async def generation(self, generation_id: str) -> OutputReported | None:
        """As ever."""
        if self._before is not None:
            await self._before(generation_id)
        report = await super().generation(generation_id)
        if self._after is not None:
            await self._after(generation_id)
        return report


async def test_a_generation_that_ends_while_it_is_adopted_waits_for_no_interval(
    amqp_url: str, database_url: str
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    slowly = {"DROVER_RECONCILE_INTERVAL_S": "60", "DROVER_DOUBT_GRACE_S": "1"}

    async def end_unheard(generation_id: str) -> None:
        """Between the question that confirms it and the write of its id."""
        crowd.end(hub, [hub.hub.ledger.generations[generation_id]])
        async with connected(database_url) as database, asyncio.timeout(10):
            while not await database.fetchval("select count(*) from orphan_events"):
                await asyncio.sleep(0.01)  # the stream has no signal for a test

    async with hub, Team(amqp_url) as team:
        client = SlowClient(hub.url, after=end_unheard)
        async with running(environment(amqp_url, database_url, hub.url, **slowly), hub=client):
            hub.faults.answers_lost = 1.0
            await team.send({"request_id": "adopted", "input": {"prompt": "x"}})
            assert name_of(await team.end_of("adopted")) == "succeeded"
    assert hub.ledger()["calls"]["post"] == 1


async def missed_by_the_stream(hub: Sandbox, team: Team, request_id: str) -> None:
    """POSTed, and ended while no stream is open, before its answer comes."""
    before = len(hub.ledger()["generations"])
    hub.faults = Faults(answer_delay_s=3.0)
    await team.send({"request_id": request_id, "input": {"prompt": request_id}})
    async with asyncio.timeout(10):
        while len(hub.ledger()["generations"]) == before:
            await asyncio.sleep(0.01)  # the ledger tells nobody
    hub.faults = Faults(answer_delay_s=3.0, stream_refused=True)
    hub.cut_streams()
    crowd.end(hub, list(hub.hub.ledger.generations.values())[before:])
    hub.faults = Faults()


async def test_a_question_about_a_missed_end_that_fails_is_asked_again(amqp_url: str, database_url: str) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    slowly = {"DROVER_RECONCILE_INTERVAL_S": "60"}
    async with hub, Team(amqp_url) as team, running(environment(amqp_url, database_url, hub.url, **slowly)) as app:
        await opened(hub, 1)
        await missed_by_the_stream(hub, team, "missed")
        await opened(hub, 2)
        hub.faults.get_status = 503
        async with asyncio.timeout(10):
            while not hub.ledger()["calls"]["get"]:
                await asyncio.sleep(0.01)
        hub.faults.get_status = None
        assert name_of(await team.end_of("missed", 10)) == "succeeded"
        assert app.metrics.registry.get_sample_value("drover_completions_total", {"by": "look"}) == 1


async def test_what_was_heard_does_not_wait_for_a_question_that_hangs(amqp_url: str, database_url: str) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    slowly = {"DROVER_RECONCILE_INTERVAL_S": "60"}
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hang(_: str) -> None:
        asked.set()
        await answered.wait()

    async with hub, Team(amqp_url) as team:
        client = SlowClient(hub.url, before=hang)
        async with running(environment(amqp_url, database_url, hub.url, **slowly), hub=client):
            await opened(hub, 1)
            await missed_by_the_stream(hub, team, "missed")
            await opened(hub, 2)
            await asyncio.wait_for(asked.wait(), 10)
            hub.faults = Faults(events_early=1.0)
            await team.send({"request_id": "early", "input": {"prompt": "early"}})
            assert name_of(await team.end_of("early", 10)) == "succeeded"
            assert team.ends("missed") == []
            answered.set()
            assert name_of(await team.end_of("missed", 10)) == "succeeded"


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


async def test_a_stream_that_is_cut_again_and_again_is_back_at_once_each_time(
    variables: dict[str, str], hub: Sandbox
) -> None:
    async with running(variables):
        for count in range(1, 7):
            await opened(hub, count)
            await asyncio.sleep(1.1)  # it stood for more than a second
            hub.cut_streams()
        await opened(hub, 7)
    spans = hub.ledger()["stream_log"]
    gaps = [later["opened_at"] - earlier["closed_at"] for earlier, later in pairwise(spans)]
    assert len(gaps) == 6
    assert max(gaps) < 1.5, gaps
