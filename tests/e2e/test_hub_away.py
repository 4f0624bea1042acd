"""The hub is away when requests come: intake goes on, and nothing unchecked is ever submitted."""

from __future__ import annotations

import asyncio

import pytest

from service.sandbox import Sandbox, SandboxOptions
from service.sandbox.schemas import STILL
from tests.support.bus import Team, name_of
from tests.support.ports import free_port
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio


async def test_requests_are_stored_while_the_hub_is_away_and_judged_before_they_are_submitted(
    amqp_url: str, database_url: str
) -> None:
    port = free_port()
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=False, port=port))
    async with (
        running(environment(amqp_url, database_url, f"http://127.0.0.1:{port}")),
        Team(amqp_url) as team,
    ):
        await team.send({"request_id": "ltx", "input": {"prompt": "x"}})
        await team.send({"request_id": "ltx-bad", "input": {"prompt": "x", "num_frames": 8}})
        await team.send({"request_id": "still", "model": STILL, "input": {"prompt": "x"}})
        await team.send({"request_id": "still-bad", "model": STILL, "input": {"prompt": 5}})
        await team.send({"request_id": "nothing", "model": "no-such-model", "input": {}})
        # The first model's schema is built in, so its faults are found at once; the others' wait.
        assert name_of(await team.end_of("ltx-bad")) == "rejected"
        stored = {"ltx", "still", "still-bad", "nothing"}
        await team.wait_for(lambda heard: {e["subject"] for e in heard.events if name_of(e) == "accepted"} == stored)
        async with hub:
            ends = await asyncio.gather(*(team.end_of(request_id, 40) for request_id in sorted(stored)))
            told = {end["subject"]: (name_of(end), (end["data"]["error"] or {}).get("code")) for end in ends}
            assert told == {
                "ltx": ("succeeded", None),
                "still": ("succeeded", None),
                "still-bad": ("failed", "invalid_input"),
                "nothing": ("failed", "unknown_model"),
            }
            assert len(hub.ledger()["generations"]) == 2


async def test_a_hub_that_refuses_posts_for_a_while_gets_each_request_once(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults.post_status = 429
    async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(20)])
        async with asyncio.timeout(10):
            while hub.ledger()["calls"].get("post", 0) < 2:
                await asyncio.sleep(0.02)
        hub.faults.post_status = None
        await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(20)), 30)
    assert len(hub.ledger()["generations"]) == 20
    assert {name_of(end) for i in range(20) for end in team.ends(f"r{i}")} == {"succeeded"}


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refusal_by_the_hub_ends_the_request_with_its_words(
    amqp_url: str, database_url: str, hub: Sandbox, status: int
) -> None:
    hub.faults.post_status = status
    async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
        await team.send({"request_id": "refused", "input": {"prompt": "x"}})
        end = await team.end_of("refused")
    assert name_of(end) == "failed"
    assert end["data"]["error"]["code"] == "upstream_rejected"
    assert [name_of(event) for event in team.of("refused")] == ["accepted", "failed"]


async def test_an_answer_that_says_nothing_for_sure_is_never_repeated(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults.post_status = 502
    async with running(environment(amqp_url, database_url, hub.url)) as app, Team(amqp_url) as team:
        await team.send({"request_id": "doubtful", "input": {"prompt": "x"}})
        async with asyncio.timeout(10):
            while await app.store.count_by_state() != {"in_doubt": 1}:
                await asyncio.sleep(0.02)  # a doubt has no event
        hub.faults.post_status = None
        await team.send({"request_id": "next", "input": {"prompt": "x"}})
        assert name_of(await team.end_of("next")) == "succeeded"
        assert hub.ledger()["calls"]["post"] == 2
        assert await app.store.count_by_state() == {"in_doubt": 1}
