"""Many at once: each request exactly one end, one submission, its events in order."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service.sandbox import Sandbox
from tests.support.bus import Team, name_of
from tests.support.replica import Process

pytestmark = pytest.mark.asyncio
N = 1000


async def test_a_burst_of_a_thousand_ends_once_each_in_order_and_in_batches(
    variables: dict[str, str], amqp_url: str, hub: Sandbox
) -> None:
    async with Process(variables) as drover:
        await drover.ready()
        async with Team(amqp_url) as team:
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(N)])
            await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= N, 60)
            told = {f"r{i}": [name_of(event) for event in team.of(f"r{i}")] for i in range(N)}
        drover.terminate()
        assert await drover.ended() == 0
    assert Counter(map(tuple, told.values())) == {("accepted", "submitted", "succeeded"): N}
    prompts = Counter(generation["prompt"] for generation in hub.ledger()["generations"])
    assert prompts == {f"clip {i}": 1 for i in range(N)}
    for step in ("intake.batch", "outcomes.batch", "reports.batch", "relay.batch"):
        assert max(line["size"] for line in drover.lines if line["event"] == step) > 1, step


async def test_two_replicas_share_the_work_and_one_stream(
    variables: dict[str, str], amqp_url: str, hub: Sandbox
) -> None:
    async with Process(variables) as first, Process(variables) as second:
        await asyncio.gather(first.ready(), second.ready())
        async with Team(amqp_url) as team:
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(300)])
            await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= 300, 60)
            told = Counter(tuple(name_of(event) for event in team.of(f"r{i}")) for i in range(300))
        assert told == {("accepted", "submitted", "succeeded"): 300}
        assert hub.ledger()["peak_streams"] == 1
        assert len(hub.ledger()["generations"]) == 300
        took_in = [sum(line["event"] == "request.accepted" for line in drover.lines) for drover in (first, second)]
        assert all(took_in), took_in
