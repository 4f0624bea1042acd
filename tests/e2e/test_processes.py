"""A replica's life: ready, killed, restarted, drained."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter

import aio_pika
import asyncpg
import pytest

from service.sandbox import Sandbox, SandboxOptions
from service.workers.submitter import OPEN
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment, get

pytestmark = pytest.mark.asyncio
CONCURRENCY = 64  # the default of DROVER_SUBMIT_CONCURRENCY


async def test_killed_in_mid_burst_nothing_is_lost_and_nothing_is_paid_twice(
    variables: dict[str, str], amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    n = 400
    async with Process(variables) as first, Team(amqp_url) as team:
        await first.ready()
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(n)])
        await team.wait_for(lambda heard: sum(name_of(e) == "submitted" for e in heard.events) >= n // 4)
        first.kill()
        await first.ended()
        posting = await _claimed(database_url)  # whether their POSTs reached the hub, nobody knows: the next issue's
        assert len(posting) <= OPEN * CONCURRENCY
        async with Process(variables) as second:
            await second.ready()
            certain = {f"r{i}" for i in range(n)} - posting
            await team.wait_for(lambda heard: all(heard.ends(request_id) for request_id in certain), 60)
    assert all(len({event["id"] for event in team.ends(request_id)}) == 1 for request_id in certain)
    prompts = Counter(generation["prompt"] for generation in hub.ledger()["generations"])
    assert max(prompts.values()) == 1


async def _claimed(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("select request_id from requests where state = 'submitting'")
    finally:
        await connection.close()
    return {row["request_id"] for row in rows}


async def test_a_drain_finishes_the_posts_under_way_and_ends_with_0(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with Process(environment(amqp_url, database_url, hub.url)) as drover:
        await drover.ready()
        async with Team(amqp_url) as team:
            hub.faults.answer_delay_s = 1.0
            await team.send({"request_id": "late", "input": {"prompt": "x"}})
            async with asyncio.timeout(10):
                while not hub.ledger()["generations"]:
                    await asyncio.sleep(0.01)  # the sandbox has no signal for a POST
            drover.terminate()
            assert await drover.ended() == 0
            await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
    assert drover.errors == []
    assert (await drover.logged("service.stopped"))["level"] == "info"


async def test_a_message_that_cannot_be_put_away_keeps_the_lease_from_nobody_and_comes_again(
    variables: dict[str, str], amqp_url: str
) -> None:
    async with Process(variables) as drover, Team(amqp_url) as team:
        await drover.ready()
        await drover.logged("leadership.taken")
        async with await aio_pika.connect(amqp_url) as connection:
            dead = await (await connection.channel()).get_queue("generation.dead")
            await dead.unbind("generation.dead", "")
        await team.cancel(b"neither JSON nor a cancel")
        await drover.logged_where(lambda line: line["event"] == "batch.delayed" and line["step"] == "quarantine")
        drover.terminate()
        assert await drover.ended(10) == 0  # the grace is thirty
        await drover.logged("leadership.given_back")
        async with Process(variables) as successor:  # which declares the binding anew
            await successor.ready()
            assert (await team.take("generation.dead")).body == b"neither JSON nor a cancel"


async def test_a_process_tells_where_it_stands_when_it_is_asked_to_and_goes_on(variables: dict[str, str]) -> None:
    async with Process(variables) as drover:
        port = await drover.ready()
        drover.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(10):
            while not any("serve.py" in line for line in drover.errors):
                await asyncio.sleep(0.02)  # its standard error has no signal
        assert (await get(f"http://127.0.0.1:{port}/healthz"))[0] == 200


async def test_health_tells_the_process_and_readiness_what_it_needs(variables: dict[str, str]) -> None:
    async with Process(variables) as drover:
        port = await drover.ready()
        await drover.logged("stream.opened")
        status, body = await get(f"http://127.0.0.1:{port}/readyz")
        assert (status, json.loads(body)["reasons"]) == (200, {})
        assert (await get(f"http://127.0.0.1:{port}/healthz"))[0] == 200
        status, body = await get(f"http://127.0.0.1:{port}/metrics")
        assert status == 200
        assert b"drover_stream_connected 1.0" in body


async def test_no_line_of_the_log_holds_a_prompt_a_key_or_a_result_url(amqp_url: str, database_url: str) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.2, render=False))
    async with hub, Process(environment(amqp_url, database_url, hub.url)) as drover:
        await drover.ready()
        async with Team(amqp_url) as team:
            await team.send({"request_id": "quiet", "input": {"prompt": "CANARY-PROMPT"}, "metadata": {"m": "CANARY"}})
            await team.send({"request_id": "loud", "input": {"prompt": ["CANARY-PROMPT"], "seed": "CANARY"}})
            await team.send(b'{"request_id": "CANARY with blanks", "CANARY": 1}')
            await team.send({"request_id": "fails", "input": {"prompt": "CANARY [fail]"}})
            for request_id in ("quiet", "loud", "fails"):
                await team.end_of(request_id)
        drover.terminate()
        await drover.ended()
    logged = json.dumps(drover.lines) + "".join(drover.errors)
    assert "CANARY" not in logged
    assert KEY not in logged
    assert "signature=" not in logged


async def test_a_replica_that_starts_before_its_database_and_broker_waits_for_them(hub: Sandbox) -> None:
    nowhere = environment("amqp://guest:guest@127.0.0.1:1/", "postgresql://nobody@127.0.0.1:1/none", hub.url)
    async with Process(nowhere) as drover:
        port = int((await drover.logged("http.listening"))["port"])
        await drover.logged("database.not_reached")
        status, body = await get(f"http://127.0.0.1:{port}/readyz")
        assert status == 503
        assert set(json.loads(body)["reasons"]) == {"database", "broker"}
        assert (await get(f"http://127.0.0.1:{port}/healthz"))[0] == 200
        drover.terminate()
        assert await drover.ended(5) == 0
