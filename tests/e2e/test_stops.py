"""Cancels and deadlines: from the message on the bus to the DELETE at the hub and the one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from service.app import App
from service.domain.patience import Patience
from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def slow() -> AsyncIterator[Sandbox]:
    """A hub whose generations take longer than any test."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture
async def waiting(amqp_url: str, database_url: str, slow: Sandbox) -> AsyncIterator[App]:
    """A replica at that hub."""
    async with running(environment(amqp_url, database_url, slow.url, DROVER_DOUBT_GRACE_S="1")) as app:
        yield app


@pytest_asyncio.fixture
async def team(amqp_url: str) -> AsyncIterator[Team]:
    """A team on the bus, without a replica of its own."""
    async with Team(amqp_url) as on_the_bus:
        yield on_the_bus


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def in_state(request_id: str, state: str) -> Callable[[Team], bool]:
    return lambda heard: any(name_of(event) == state for event in heard.of(request_id))


def statuses(sandbox: Sandbox) -> list[str]:
    return [generation["status"] for generation in sandbox.ledger()["generations"]]


async def test_a_generation_under_way_is_cancelled_at_the_hub(waiting: App, team: Team, slow: Sandbox) -> None:
    await team.send({"request_id": "r", "input": {"prompt": "x"}, "num_generations": 2})
    await team.wait_for(in_state("r", "submitted"))
    await team.cancel({"request_id": "r"})
    end = await team.end_of("r")
    assert (name_of(end), end["data"]["error"]["code"]) == ("cancelled", "cancelled")
    assert [output["status"] for output in end["data"]["outputs"]] == ["cancelled", "cancelled"]
    assert statuses(slow) == ["cancelled", "cancelled"]
    assert slow.ledger()["calls"]["delete"] == 2


async def test_what_was_finished_before_the_cancel_comes_with_its_url(
    amqp_url: str, database_url: str, team: Team
) -> None:
    jittery = SandboxOptions(api_key=KEY, delay_s=300.2, jitter_s=300, render=False)
    async with Sandbox(jittery) as hub, running(environment(amqp_url, database_url, hub.url)):
        # Contents of their own: alike and without a seed of ours, they would be submitted one after another.
        bodies = [{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}, "num_generations": 4} for i in range(150)]
        await team.send_many(bodies)
        await team.wait_for(lambda heard: any(name_of(event) == "output" for event in heard.events))
        request_id = next(event["subject"] for event in team.events if name_of(event) == "output")
        await team.cancel({"request_id": request_id})
        end = await team.end_of(request_id)
    told = sorted(output["status"] for output in end["data"]["outputs"])
    assert (name_of(end), "cancelled" in told, "succeeded" in told) == ("cancelled", True, True)
    assert [bool(output["url"]) for output in end["data"]["outputs"]] == [
        output["status"] == "succeeded" for output in end["data"]["outputs"]
    ]


async def test_a_cancel_that_comes_before_its_request_is_applied_on_arrival(
    waiting: App, team: Team, slow: Sandbox, database_url: str
) -> None:
    await team.cancel({"request_id": "early"})
    connection = await asyncpg.connect(database_url)
    async with asyncio.timeout(10):
        while not await connection.fetchval("select exists (select from early_cancels)"):
            await asyncio.sleep(0.02)  # a kept cancel has no event
    await connection.close()
    await team.send({"request_id": "early", "input": {"prompt": "x"}})
    assert name_of(await team.end_of("early")) == "cancelled"
    assert [name_of(event) for event in team.of("early")] == ["accepted", "cancelled"]
    assert slow.ledger()["calls"]["post"] == 0


async def test_a_cancel_and_its_request_at_the_same_moment_end_it_in_whichever_order_they_meet(
    waiting: App, team: Team, slow: Sandbox
) -> None:
    ids = [f"r{i}" for i in range(60)]
    await asyncio.gather(
        *(team.send({"request_id": key, "input": {"prompt": "x"}}) for key in ids),
        *(team.cancel({"request_id": key}) for key in ids),
    )
    await team.wait_for(lambda heard: all(heard.ends(key) for key in ids))
    assert {name_of(event) for key in ids for event in team.ends(key)} == {"cancelled"}
    assert set(statuses(slow)) <= {"cancelled"}


async def test_a_cancel_whose_request_comes_between_its_two_looks_is_not_lost(
    waiting: App, team: Team, slow: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = waiting.store.keep_early_cancels

    async def after_the_request(request_ids: Sequence[str], now: datetime) -> None:
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: len(heard.of("r")) == 2)
        await keep(request_ids, now)

    monkeypatch.setattr(waiting.store, "keep_early_cancels", after_the_request)
    await team.cancel({"request_id": "r"})
    assert name_of(await team.end_of("r")) == "cancelled"
    assert statuses(slow) == ["cancelled"]


async def test_a_cancel_of_what_has_ended_sends_its_end_again(team: Team, app: App) -> None:
    await team.send({"request_id": "done", "input": {"prompt": "x"}})
    first = await team.end_of("done")
    await team.cancel({"request_id": "done"}, reply_to=team.reply_to, correlation_id="why")
    await team.wait_for(lambda heard: len(heard.ends("done")) == 2 and len(heard.replies) == 1)
    assert name_of(first) == "succeeded"
    assert {event["id"] for event in [*team.ends("done"), *team.replies]} == {first["id"]}


async def test_a_cancel_that_is_none_is_quarantined_and_answered(waiting: App, team: Team) -> None:
    await team.cancel(b'{"request": "typo"}', reply_to=team.reply_to)
    message = await team.take("generation.dead")
    assert (message.body, message.headers["x-drover-reason"]) == (b'{"request": "typo"}', "invalid_message")
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    assert team.replies[0]["data"]["error"]["details"][0]["path"] == "/request_id"


async def test_a_post_whose_answer_is_lost_can_be_cancelled_too(waiting: App, team: Team, slow: Sandbox) -> None:
    slow.faults.answers_lost = 1.0
    await team.send({"request_id": "r", "input": {"prompt": "x"}})
    async with asyncio.timeout(10):
        while await waiting.store.count_by_state() != {"in_doubt": 1}:
            await asyncio.sleep(0.02)  # a doubt has no event
    await team.cancel({"request_id": "r"})
    assert name_of(await team.end_of("r")) == "cancelled"
    assert statuses(slow) == ["cancelled"]
    assert [name_of(event) for event in team.of("r")] == ["accepted", "submitted", "cancelled"]


async def test_past_its_deadline_a_generation_is_cancelled_at_the_hub_and_the_request_expires(
    waiting: App, team: Team, slow: Sandbox
) -> None:
    await team.send({"request_id": "late", "input": {"prompt": "x"}, "deadline": soon(2)})
    end = await team.end_of("late")
    assert (name_of(end), end["data"]["error"]["code"]) == ("expired", "deadline_exceeded")
    assert [output["status"] for output in end["data"]["outputs"]] == ["cancelled"]
    assert statuses(slow) == ["cancelled"]


async def test_a_deadline_that_is_over_on_arrival_costs_nothing(waiting: App, team: Team, slow: Sandbox) -> None:
    await team.send({"request_id": "old", "input": {"prompt": "x"}, "deadline": soon(-5)})
    assert name_of(await team.end_of("old")) == "expired"
    assert [name_of(event) for event in team.of("old")] == ["accepted", "expired"]
    assert slow.ledger()["calls"]["post"] == 0


async def test_a_request_that_waits_for_the_hub_expires_without_it(
    amqp_url: str, database_url: str, unused_tcp_port: int, team: Team
) -> None:
    async with running(environment(amqp_url, database_url, f"http://127.0.0.1:{unused_tcp_port}")):
        await team.send({"request_id": "r", "input": {"prompt": "x"}, "deadline": soon(1.5)})
        assert name_of(await team.end_of("r")) == "expired"


async def test_a_hub_that_never_ends_what_it_was_asked_to_leaves_the_output_lost(
    amqp_url: str, database_url: str, team: Team, slow: Sandbox
) -> None:
    slow.faults.deletes_ignored = 1.0
    patience = Patience(stop=timedelta(seconds=2))
    async with running(environment(amqp_url, database_url, slow.url), patience=patience):
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await team.wait_for(in_state("r", "submitted"))
        await team.cancel({"request_id": "r"})
        end = await team.end_of("r")
    assert (name_of(end), end["data"]["outputs"][0]["error"]["code"]) == ("cancelled", "upstream_lost")
    assert slow.ledger()["calls"]["delete"] > 1


async def test_a_generation_that_the_hub_has_forgotten_is_lost_after_a_while(
    amqp_url: str, database_url: str, team: Team, slow: Sandbox
) -> None:
    variables = environment(amqp_url, database_url, slow.url, DROVER_RECONCILE_INTERVAL_S="1")
    async with running(variables, patience=Patience(missing=timedelta(seconds=2))):
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        submitted = in_state("r", "submitted")
        await team.wait_for(submitted)
        slow.forget(*[generation["generation_id"] for generation in slow.ledger()["generations"]])
        end = await team.end_of("r")
    assert (name_of(end), end["data"]["error"]["code"]) == ("failed", "upstream_lost")
    assert slow.ledger()["calls"]["post"] == 1


async def test_a_generation_cancelled_by_somebody_else_ends_the_request(
    amqp_url: str, database_url: str, team: Team, slow: Sandbox
) -> None:
    async with running(environment(amqp_url, database_url, slow.url, DROVER_RECONCILE_INTERVAL_S="1")):
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await team.wait_for(in_state("r", "submitted"))
        slow.cancel(*[generation["generation_id"] for generation in slow.ledger()["generations"]])
        end = await team.end_of("r")
    assert (name_of(end), end["data"]["error"]["code"]) == ("cancelled", "cancelled")
