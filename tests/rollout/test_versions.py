"""The previous code on the new schema, the new code on the previous schema, and both at work on one database."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import jsonschema_rs
import pytest

from service.sandbox import Sandbox, SandboxOptions
from tests.rollout.versions import COLUMN, INDEX, migrate, statements_of
from tests.support.api import Api
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment, get
from tests.support.servers import REPOSITORY

pytestmark = pytest.mark.asyncio
RELEASED = REPOSITORY / "contracts" / "released" / "v1"
Trees = dict[str, Path]
FORGET = "delete from schema_migrations where version = $1 returning version, name"
BY_HAND = {"DROVER_MIGRATE_ON_START": "false"}


def request(request_id: str, **more: Any) -> dict[str, Any]:
    """A request whose prompt shows at the hub whose it is."""
    return {"request_id": request_id, "input": {"prompt": f"clip {request_id}"}, **more}


def check_story(team: Team, request_id: str) -> None:
    """Its events are numbered without a hole and fit the released contract, and the last one alone ends it."""
    story = {int(event["sequence"]): event for event in team.of(request_id)}
    assert sorted(story) == list(range(1, len(story) + 1)), request_id
    assert len({event["id"] for event in team.of(request_id)}) == len(story), request_id
    assert {event["id"] for event in team.ends(request_id)} == {story[len(story)]["id"]}, request_id
    for event in story.values():
        schema = json.loads((RELEASED / f"generation.{name_of(event)}.json").read_text("utf-8"))
        jsonschema_rs.validator_for(schema, offline=True, validate_formats=True).validate(event)


def check_purchases(hub: Sandbox) -> None:
    """Nothing was paid for twice; those with two outputs have two."""
    prompts = Counter(generation["prompt"] for generation in hub.ledger()["generations"])
    assert {prompt: count for prompt, count in prompts.items() if count > 1 + prompt.endswith("-two")} == {}


def check_logs(*replicas: Process) -> None:
    """Nobody had an error."""
    for replica in replicas:
        assert replica.errors == []
        assert [line for line in replica.lines if line["level"] in ("error", "critical")] == []


async def asked(database_url: str, query: str, *arguments: object) -> dict[str, Any]:
    """Rows of two columns."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row[0]: row[1] for row in await connection.fetch(query, *arguments)}
    finally:
        await connection.close()


# -- one version on the other's schema --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "schema"), [("previous", "present"), ("previous", "next"), ("present", "next"), ("present", "previous")]
)
async def test_every_statement_of_one_version_works_on_the_schema_of_the_other(
    code: str, schema: str, trees: Trees, database_url: str
) -> None:
    migrate(trees[schema], database_url)
    connection = await asyncpg.connect(database_url)
    try:
        for name, text in statements_of(trees[code]).items():
            prepared = await connection.prepare(text)
            assert "unknown" not in {parameter.name for parameter in prepared.get_parameters()}, name
    finally:
        await connection.close()


@pytest.mark.parametrize("schema", ["present", "next"])
async def test_the_previous_version_works_on_a_schema_that_is_newer(
    schema: str, trees: Trees, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    migrate(trees[schema], database_url)
    variables = environment(amqp_url, database_url, hub.url, **BY_HAND)
    async with Process(variables, tree=trees["previous"]) as previous, Team(amqp_url) as team:
        url = f"http://127.0.0.1:{await previous.ready()}"
        ends = {"good": "succeeded", "good-two": "succeeded", "bad": "failed", "gone": "cancelled"}
        await team.cancel({"request_id": "gone"})
        await team.send(request("good"))
        await team.send(request("good-two", num_generations=2))
        await team.send(request("bad", input={"prompt": "[fail]"}))
        await team.send(request("gone"))
        for request_id, end in ends.items():
            assert name_of(await team.end_of(request_id)) == end
            check_story(team, request_id)
        async with Api(url) as api:
            assert (await api.get("/v1/generations/good")).document["status"] == "succeeded"
            listed = (await api.get("/v1/generations")).document
            assert {item["request_id"] for item in listed["generations"]} == set(ends)
        previous.terminate()
        assert await previous.ended() == 0
    check_logs(previous)


async def test_a_version_that_needs_a_migration_waits_while_the_previous_one_serves_and_then_goes_on(
    trees: Trees, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    migrate(trees["previous"], database_url)
    variables = environment(amqp_url, database_url, hub.url, **BY_HAND)
    async with Process(variables, tree=trees["previous"]) as previous, Team(amqp_url) as team:
        await previous.ready()
        async with Process(variables, tree=trees["next"]) as following:
            url = f"http://127.0.0.1:{(await following.logged('http.listening'))['port']}"
            awaited = (await following.logged("migration.awaited"))["reason"]
            status, body = await get(f"{url}/readyz")
            assert (status, json.loads(body)["reasons"].keys()) == (503, {"database", "broker"})
            assert json.loads(body)["reasons"]["database"] == awaited
            assert awaited.startswith(f"The database lacks {COLUMN}; run `drover migrate`")  # not the index
            assert (await get(f"{url}/healthz"))[0] == 200
            async with Api(url) as api:  # where somebody sends it something all the same, it takes nothing
                assert (await api.call("POST", "/v1/generations", json=request("lost"))).status == 503
                assert (await api.get("/v1/generations")).status == 503
            await team.send(request("before"))
            assert name_of(await team.end_of("before")) == "succeeded"

            await asyncio.to_thread(migrate, trees["next"], database_url)
            await following.ready()
            assert (await get(f"{url}/readyz"))[0] == 200
            previous.terminate()
            assert await previous.ended() == 0
            await team.send(request("after"))
            assert name_of(await team.end_of("after")) == "succeeded"
            following.terminate()
            assert await following.ended() == 0
    check_logs(previous, following)
    assert await asked(database_url, "select request_id, written_by from requests") == {
        "before": "previous",
        "after": "next",
    }


async def test_who_waits_for_a_migration_ends_at_once_when_told_to(
    trees: Trees, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    variables = environment(amqp_url, database_url, hub.url, **BY_HAND)
    async with Process(variables) as waiting:  # a database without any table
        assert "0001_spine" in (await waiting.logged("migration.awaited"))["reason"]
        waiting.terminate()
        assert await waiting.ended(5) == 0


async def test_a_version_starts_without_a_migration_that_it_can_do_without(
    trees: Trees, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    migrate(trees["next"], database_url)
    await asked(database_url, FORGET, int(INDEX[:4]))
    variables = environment(amqp_url, database_url, hub.url, **BY_HAND)
    async with Process(variables, tree=trees["next"]) as following, Team(amqp_url) as team:
        await following.ready()
        assert (await following.logged("migration.left_out"))["migrations"] == INDEX
        await team.send(request("r"))
        assert name_of(await team.end_of("r")) == "succeeded"


# -- side by side -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("previous", "next"), ("next", "previous")])
async def test_either_version_hands_over_to_the_other_in_mid_flight(
    first: str, second: str, trees: Trees, amqp_url: str, database_url: str
) -> None:
    """There and back, as a rollout and its rollback. Each migrates as it starts, beside the other at work."""
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=1.0, render=False))
    async with hub, Team(amqp_url) as team:
        variables = environment(amqp_url, database_url, hub.url)
        sent: list[str] = []

        async def send(count: int) -> None:
            bodies = [request(f"r{len(sent) + number}") for number in range(count)]
            bodies.append(request(f"r{len(sent)}-two", num_generations=2))
            sent.extend(body["request_id"] for body in bodies)
            await team.send_many(bodies)

        async with Process(variables, tree=trees[first]) as one:
            await one.ready()
            await one.logged("stream.opened")
            await send(40)
            async with Process(variables, tree=trees[second]) as two:
                await two.ready()
                await hand_over(one, two, team, send)
                async with Process(variables, tree=trees[first]) as three:
                    await three.ready()
                    await hand_over(two, three, team, send)
                    await team.wait_for(lambda heard: all(heard.ends(request_id) for request_id in sent), 30)
                    three.terminate()
                    assert await three.ended() == 0
    for request_id in sent:
        check_story(team, request_id)
        assert name_of(team.ends(request_id)[0]) == "succeeded"
    check_purchases(hub)
    check_logs(one, two, three)
    writers = await asked(database_url, "select written_by, count(*) from requests group by 1")
    assert sum(writers.values()) == len(sent)
    assert set(writers) == {"previous", "next"}


async def hand_over(leader: Process, other: Process, team: Team, send: Callable[[int], Awaitable[None]]) -> None:
    """The leader goes with requests before, at and behind the hub; the other one leads and takes what comes."""
    await send(20)
    ended = {event["subject"] for event in team.events if name_of(event) == "succeeded"}
    await team.wait_for(
        lambda heard: sum(name_of(e) == "submitted" and e["subject"] not in ended for e in heard.events) > 10
    )
    leader.terminate()
    await send(20)
    assert await leader.ended() == 0
    await other.logged("leadership.taken")
    await send(20)
