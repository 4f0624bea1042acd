"""Upstream limits that hold for all replicas together, judged by what the hub saw; and fairness between sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment, running

pytestmark = pytest.mark.asyncio
RATE = 20
LATE_S = 0.4  # a POST may reach the hub that much later after its claim than another
MOST = 10


@pytest_asyncio.fixture
async def quick() -> AsyncIterator[Sandbox]:
    """A hub that takes half a second for a generation, more or less."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=0.5, jitter_s=0.2, render=False)) as sandbox:
        yield sandbox


async def ended(team: Team, count: int, timeout_s: float = 60.0) -> None:
    await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(count)), timeout_s)


async def test_two_replicas_together_keep_to_the_rate(amqp_url: str, database_url: str, quick: Sandbox) -> None:
    count = 7 * RATE
    variables = environment(amqp_url, database_url, quick.url, DROVER_SUBMIT_RATE_PER_S=str(RATE))
    async with Process(variables) as first, Process(variables) as second:
        await asyncio.gather(first.ready(), second.ready())
        async with Team(amqp_url) as team:
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(count)])
            await ended(team, count)
    times = [post["at"] for post in quick.ledger()["posts"]]
    assert len(times) == count
    for (i, begin), (j, end) in combinations(enumerate(times), 2):
        assert j - i + 1 <= RATE / 10 + RATE * (end - begin + LATE_S), "POSTs within some seconds"
    assert times[-1] - times[0] < 1.5 * count / RATE  # the limit, and not half of it


async def test_while_no_outcome_can_be_written_the_hub_gets_three_times_the_concurrency_and_no_more(
    amqp_url: str, database_url: str, quick: Sandbox
) -> None:
    variables = environment(amqp_url, database_url, quick.url, DROVER_SUBMIT_CONCURRENCY="4")
    async with Process(variables) as replica, Team(amqp_url) as team:
        await replica.ready()
        sql = await asyncpg.connect(database_url)
        held = sql.transaction()
        await held.start()
        await sql.execute("lock table outputs in exclusive mode")  # what the hub has accepted cannot be stored
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(40)])
        async with asyncio.timeout(20):
            while len(quick.ledger()["posts"]) < 3 * 4:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # nothing tells that nothing more comes
        assert len(quick.ledger()["posts"]) == 3 * 4
        await held.rollback()
        await sql.close()
        await ended(team, 40)
    assert len(quick.ledger()["posts"]) == 40


def peak(generations: Sequence[dict[str, Any]]) -> int:
    """The most that were active at the hub at one time."""
    changes = sorted((g[key], step) for g in generations for key, step in (("posted_at", 1), ("ended_at", -1)))
    active, most = 0, 0
    for _, step in changes:
        active += step
        most = max(most, active)
    return most


async def test_two_replicas_together_keep_to_the_generations_in_flight(
    amqp_url: str, database_url: str, quick: Sandbox
) -> None:
    count = 40
    variables = environment(amqp_url, database_url, quick.url, DROVER_MAX_IN_FLIGHT=str(MOST))
    async with Process(variables) as first, Process(variables) as second:
        await asyncio.gather(first.ready(), second.ready())
        async with Team(amqp_url) as team:
            bodies = [{"input": {"prompt": f"clip {i}"}, "num_generations": (1, 1, 1, 4)[i % 4]} for i in range(count)]
            began = asyncio.get_running_loop().time()
            await team.send_many([{"request_id": f"r{i}", **body} for i, body in enumerate(bodies)])
            await ended(team, count)
            took = asyncio.get_running_loop().time() - began
    generations = quick.ledger()["generations"]
    assert len(generations) == 70
    assert MOST - 3 <= peak(generations) <= MOST
    assert took < 25  # a place that is free is taken within the second


async def test_a_place_that_is_free_again_is_taken_at_once(amqp_url: str, database_url: str) -> None:
    async with (
        Sandbox(SandboxOptions(api_key=KEY, delay_s=0.05, render=False)) as hub,
        running(environment(amqp_url, database_url, hub.url, DROVER_MAX_IN_FLIGHT="1")),
        Team(amqp_url) as team,
    ):
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(12)])
        await ended(team, 12)
        generations = hub.ledger()["generations"]
    assert peak(generations) == 1
    assert generations[-1]["posted_at"] - generations[0]["posted_at"] < 6  # and not a second for each


async def test_a_request_for_more_than_the_limit_is_not_starved_and_goes_alone(
    amqp_url: str, database_url: str, quick: Sandbox
) -> None:
    async with (
        running(environment(amqp_url, database_url, quick.url, DROVER_MAX_IN_FLIGHT="2")),
        Team(amqp_url) as team,
    ):
        bodies = [{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(9)]
        await team.send_many([{**body, "num_generations": 4 if i == 4 else 1} for i, body in enumerate(bodies)])
        await ended(team, 9)
    large = [g for g in quick.ledger()["generations"] if g["prompt"] == "clip 4"]
    small = [g for g in quick.ledger()["generations"] if g["prompt"] != "clip 4"]
    assert len(large) == 4
    assert peak(small) <= 2
    begun, with_room = min(g["posted_at"] for g in large), sorted(g["ended_at"] for g in large)[2]
    assert not [g for g in small if g["ended_at"] > begun and g["posted_at"] < with_room]


# -- fairness ---------------------------------------------------------------------------------------------------------

MANY = """
insert into requests (request_id, state, version, sequence, source, model, input, input_checked, num_generations,
    content_hash, seed_chosen, seed, priority, deadline, received_at, next_attempt_at)
select 'many-' || n, 'accepted', 1, 1, 'many', 'ltx-2-3-quality-text-to-video', json_build_object('prompt', 'many'),
    true, 1, sha256(convert_to(n::text, 'utf8')), true, n, 9, $2::timestamptz + interval '1 day', $2, '-infinity'
from generate_series(1, $1::integer) n
"""


async def test_ten_of_a_source_are_submitted_in_turn_with_ten_thousand_of_another(
    amqp_url: str, database_url: str, quick: Sandbox
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(MANY, 10_000, datetime.now(UTC))
    await connection.close()
    quick.faults.answer_delay_s = 0.05
    variables = environment(amqp_url, database_url, quick.url, DROVER_SUBMIT_CONCURRENCY="4")
    async with running(variables), Team(amqp_url) as team:
        await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) > 20)
        bodies = [{"request_id": f"r{i}", "input": {"prompt": f"few {i}"}, "priority": i % 2} for i in range(10)]
        await asyncio.gather(*(team.send(body, app_id="few") for body in bodies))
        await ended(team, 10)
    sent = [post["prompt"] for post in quick.ledger()["posts"]]
    few = [place for place, prompt in enumerate(sent) if prompt != "many"]
    assert few[-1] - few[0] < 40, "ten, each after one of the others, but for what was claimed before they came"
