"""A POST whose answer is lost: looked for before it may be repeated, adopted when found, paid for once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from service.app import App
from service.clock import utc_now
from service.domain.claims import Claims
from service.domain.errors import DatabaseUnavailableError
from service.domain.patience import Patience
from service.postgres.database import Database
from service.postgres.store import RequestStore
from service.sandbox import Faults, Sandbox, SandboxOptions
from service.sandbox.models.edits import UPSCALER
from service.sandbox.schemas import SEEDLESS
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment, running
from tests.support.sql import connected

pytestmark = pytest.mark.asyncio
QUICK = {"DROVER_DOUBT_GRACE_S": "1"}


async def in_doubt(app: App) -> None:
    """Until the one request there is is in doubt."""
    async with asyncio.timeout(10):
        while await app.store.count_by_state() != {"in_doubt": 1}:
            await asyncio.sleep(0.02)  # a doubt has no event


def statuses(hub: Sandbox) -> list[str]:
    """Of the generations, in the order in which they were bought."""
    return [generation["status"] for generation in hub.ledger()["generations"]]


def prompts(hub: Sandbox) -> list[str]:
    """Of the generations, in the order in which they were bought."""
    return [generation["parameters"]["prompt"] for generation in hub.ledger()["generations"]]


async def posted(hub: Sandbox, count: int) -> None:
    """Until the hub has taken so many."""
    async with asyncio.timeout(10):
        while len(hub.ledger()["generations"]) < count:
            await asyncio.sleep(0.01)  # the ledger tells nobody


async def test_lost_answers_are_found_at_the_hub_and_nothing_is_bought_twice(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(answers_lost=0.25)  # fewer than open the breaker, which is not the subject here
    async with running(environment(amqp_url, database_url, hub.url, **QUICK)), Team(amqp_url) as team:
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i % 7}"}} for i in range(60)])
        await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(60)), 60)
        for i in range(60):
            assert [name_of(event) for event in team.of(f"r{i}")] == ["accepted", "submitted", "succeeded"]
    assert len(hub.ledger()["generations"]) == 60
    told = Counter(end["data"]["outputs"][0]["generation_id"] for i in range(60) for end in team.ends(f"r{i}"))
    assert set(told.values()) == {1}


class Forgetful(RequestStore):
    """Takes the first claim that finds something, and cannot say so."""

    forgot = False

    async def claim(self, *args: Any, **options: Any) -> Claims:
        """As ever, but for that."""
        claims = await super().claim(*args, **options)
        if claims.claimed and not self.forgot:
            self.forgot = True
            raise DatabaseUnavailableError("The connection broke before the answer came.")
        return claims


async def test_a_claim_whose_answer_was_lost_is_given_back_and_is_no_doubt(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    database = Database(database_url)
    await database.open()
    async with running(environment(amqp_url, database_url, hub.url), store=Forgetful(database)), Team(amqp_url) as team:
        await team.send({"request_id": "lost", "input": {"prompt": "x"}})
        end = await team.end_of("lost", 10)  # the claim is good for thirty seconds
    await database.close()
    assert (name_of(end), end["data"]["attempts"]) == ("succeeded", 2)
    assert hub.ledger()["calls"]["post"] == 1


async def test_what_the_hub_never_took_is_submitted_again_after_two_looks(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults.post_status = 502
    async with running(environment(amqp_url, database_url, hub.url, **QUICK)) as app, Team(amqp_url) as team:
        await team.send({"request_id": "unseen", "input": {"prompt": "x"}})
        await in_doubt(app)
        hub.faults.post_status = None
        end = await team.end_of("unseen", 30)
    assert (name_of(end), end["data"]["attempts"]) == ("succeeded", 2)
    assert len(hub.ledger()["generations"]) == 1


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (SEEDLESS, {"prompt": "x", "image_url": "https://example.com/a.png"}),
        (UPSCALER, {"image_url": "https://example.com/a.png"}),  # its prompt is shown as null
    ],
)
async def test_identical_requests_without_a_mark_do_not_adopt_each_others(
    amqp_url: str, database_url: str, hub: Sandbox, model: str, parameters: dict[str, str]
) -> None:
    hub.faults = Faults(answers_lost=0.25)  # fewer than open the breaker, which is not the subject here
    same = {"model": model, "input": parameters}
    async with running(environment(amqp_url, database_url, hub.url, **QUICK)), Team(amqp_url) as team:
        await team.send_many([{"request_id": f"twin-{i}", **same} for i in range(6)])
        await team.wait_for(lambda heard: all(heard.ends(f"twin-{i}") for i in range(6)), 60)
    ids = [team.ends(f"twin-{i}")[0]["data"]["outputs"][0]["generation_id"] for i in range(6)]
    assert len(set(ids)) == len(hub.ledger()["generations"]) == 6


async def test_several_outputs_are_adopted_together(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    hub.faults = Faults(answers_lost=1.0)
    async with running(environment(amqp_url, database_url, hub.url, **QUICK)), Team(amqp_url) as team:
        await team.send({"request_id": "three", "input": {"prompt": "x"}, "num_generations": 3})
        end = await team.end_of("three", 30)
    assert name_of(end) == "succeeded"
    assert {output["generation_id"] for output in end["data"]["outputs"]} == {
        generation["generation_id"] for generation in hub.ledger()["generations"]
    }
    assert hub.ledger()["calls"]["post"] == 1


async def test_lists_that_fail_for_a_while_only_delay_the_adoption(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(answers_lost=1.0, list_status=503, html_bodies=True)
    async with running(environment(amqp_url, database_url, hub.url, **QUICK)) as app, Team(amqp_url) as team:
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await in_doubt(app)
        async with asyncio.timeout(20):
            while hub.ledger()["calls"]["list"] < 3:
                await asyncio.sleep(0.02)  # a list that fails has no event
        hub.faults = Faults()
        assert name_of(await team.end_of("r", 30)) == "succeeded"
    assert hub.ledger()["calls"]["post"] == 1


async def test_what_partial_lists_never_decide_fails_as_outcome_unknown_and_is_not_repeated(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(answers_lost=1.0, list_limit=0, events_dropped=1.0)
    variables = environment(amqp_url, database_url, hub.url, **QUICK)
    async with running(variables, patience=Patience(doubt=timedelta(seconds=1))), Team(amqp_url) as team:
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        end = await team.end_of("r", 30)
    assert (name_of(end), end["data"]["error"]["code"]) == ("failed", "outcome_unknown")
    assert hub.ledger()["calls"]["post"] == 1


async def test_a_list_that_hides_what_is_active_decides_nothing_although_its_count_says_that_it_is_whole(
    amqp_url: str, database_url: str
) -> None:
    patience = Patience(doubt=timedelta(seconds=1))
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False)) as slow:
        variables = environment(amqp_url, database_url, slow.url, **QUICK)
        async with running(variables, patience=patience), Team(amqp_url) as team:
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(3)])
            await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) == 3)
            slow.faults = Faults(answers_lost=1.0, list_limit=2, list_limit_hidden=True)
            await team.send({"request_id": "hidden", "input": {"prompt": "x"}})
            end = await team.end_of("hidden", 30)
    assert (name_of(end), end["data"]["error"]["code"]) == ("failed", "outcome_unknown")
    assert slow.ledger()["calls"]["post"] == 4


async def test_what_the_hub_shows_only_after_the_grace_was_bought_twice_and_that_is_told_and_ended(
    amqp_url: str, database_url: str
) -> None:
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False)) as slow:
        slow.faults = Faults(answers_lost=1.0, hidden_s=8)
        patience = Patience(surplus=timedelta(seconds=30))
        variables = environment(amqp_url, database_url, slow.url, **QUICK)
        async with running(variables, patience=patience) as app, Team(amqp_url) as team:
            await team.send({"request_id": "r", "input": {"prompt": "x"}})
            await in_doubt(app)
            slow.faults.answers_lost = 0.0
            await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events), 30)
            async with asyncio.timeout(30):
                while statuses(slow).count("cancelled") == 0:
                    await asyncio.sleep(0.05)  # a surplus has no event
            told = app.metrics.registry.get_sample_value("drover_generations_unowned_total", {"cause": "shown_late"})
            assert told == 1
    assert statuses(slow)[0] == "cancelled"
    assert len(statuses(slow)) == 2


async def test_a_request_is_not_posted_again_by_the_replica_that_holds_its_answer_unwritten(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(answer_delay_s=0.5, hidden_s=3600)
    variables = environment(amqp_url, database_url, hub.url, **QUICK)
    async with (
        running(variables),
        Team(amqp_url) as team,
        connected(database_url) as lock,
        connected(database_url) as sql,
    ):
        await team.send({"request_id": "first", "input": {"prompt": "x"}})
        await posted(hub, 1)
        async with lock.transaction(), asyncio.timeout(30):
            # No outcome of the first can be written, nor any behind it.
            await lock.execute("select from requests where request_id = 'first' for update")
            await team.send({"request_id": "second", "input": {"prompt": "y"}})
            await posted(hub, 2)
            await sql.execute("update requests set claim_expires_at = $1 where request_id = 'second'", utc_now())
            while await sql.fetchval("select attempts from requests where request_id = 'second'") < 2:
                await asyncio.sleep(0.05)  # what is looked for in vain has no event
            await team.send({"request_id": "third", "input": {"prompt": "z"}})  # claimed after it
            while "z" not in prompts(hub):
                await asyncio.sleep(0.02)
        ends = [name_of(await team.end_of(name, 30)) for name in ("first", "second", "third")]
    assert ends == ["succeeded"] * 3
    assert prompts(hub) == ["x", "y", "z"]


async def test_killed_with_posts_under_way_everything_ends_and_nothing_is_bought_twice(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    n = 200
    variables = environment(amqp_url, database_url, hub.url, DROVER_SUBMIT_TIMEOUT_S="1", **QUICK)
    async with Process(variables) as first, Team(amqp_url) as team:
        await first.ready()
        hub.faults.answer_delay_s = 0.3
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": f"clip {i}"}} for i in range(n)])
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
        hub.faults.answer_delay_s = 60  # from now on the hub takes what it is sent, and nobody hears of it
        taken = len(hub.ledger()["generations"])
        async with asyncio.timeout(10):
            while len(hub.ledger()["generations"]) == taken:
                await asyncio.sleep(0.01)
        first.kill()
        await first.ended()
        hub.faults.answer_delay_s = 0.3
        async with Process(variables) as second:
            await second.ready()
            await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(n)), 60)
            found = [line for line in second.lines if line.get("reason") == "found at the hub by its content"]
            assert found
        assert all(name_of(team.ends(f"r{i}")[0]) == "succeeded" for i in range(n))
    prompts = Counter(generation["prompt"] for generation in hub.ledger()["generations"])
    assert prompts == {f"clip {i}": 1 for i in range(n)}
