"""`drover dead` and `drover cancel` as an operator uses them: at a terminal, in a script, when something is wrong."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from service.app import App
from service.cli.letters import summary_of
from service.domain.messages import Message
from service.rabbit.connection import Link
from service.rabbit.dead_letters import put_away
from service.rabbit.quarantine import Choice, Quarantine
from service.rabbit.topology import DEAD, REQUESTS, declare
from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.command import drover, one_sentence
from tests.support.replica import KEY, environment, running
from tests.support.terminal import at_a_terminal as terminal

pytestmark = pytest.mark.asyncio
SECRET = "the prompt of somebody"
REQUEST = json.dumps({"request_id": "r-1", "input": {"prompt": SECRET}}).encode()


@pytest_asyncio.fixture
async def link(amqp_url: str) -> AsyncIterator[Link]:
    """A broker with the topology, and nobody who consumes."""
    opened = await Link.open(amqp_url, "test")
    await declare(await opened.channel(confirms=False))
    yield opened
    await opened.close()


async def put_in(link: Link, *bodies: bytes, reason: str = "internal", source: str = "team") -> list[str]:
    """Letters as the service writes them; their ids."""
    channel = await link.channel(confirms=True)
    letter_ids = [secrets.token_hex(6) for _ in bodies]
    for letter_id, body in zip(letter_ids, bodies, strict=True):
        message = Message(body, message_id=None, source=source, queue=REQUESTS)
        properties = put_away(message, reason, letter_id, datetime.now(UTC), 100_000)
        await channel.basic_publish(body, exchange=DEAD, properties=properties)
    return letter_ids


async def run(url: str, *arguments: str) -> tuple[int, str, str]:
    """`drover dead ...` without a terminal."""
    return await drover("dead", *arguments, DROVER_AMQP_URL=url)


async def listed(url: str) -> list[dict[str, Any]]:
    """What is in quarantine, without a process."""
    async with Quarantine(url) as quarantine:
        return [summary_of(held.letter, datetime.now(UTC), held.position) async for held in quarantine.find(Choice())]


async def at_a_terminal(url: str, *arguments: str, typed: str = "") -> tuple[int | None, str]:
    """`drover dead ...` at a terminal."""
    return await terminal("dead", *arguments, typed=typed, DROVER_AMQP_URL=url)


# -- looking ----------------------------------------------------------------------------------------------------------


async def test_what_drover_put_away_is_listed_without_its_body_and_shown_with_it(
    app: App, team: Team, amqp_url: str
) -> None:
    await team.send(
        b"{" + SECRET.encode(), message_id="no id", app_id="shop", headers={"shot": 7}, reply_to=team.reply_to
    )
    await team.wait_for(lambda heard: bool(heard.replies))
    code, out, err = await run(amqp_url, "list", "--json")
    (row,) = json.loads(out)["messages"]
    assert (code, err) == (0, "")
    expected = {"position": 1, "reason": "invalid_message", "queue": REQUESTS, "source": "shop", "request_id": None}
    assert {key: row[key] for key in expected} == expected
    assert row["size"] == len(SECRET) + 1
    assert row["age_s"] < 60
    code, out, err = await run(amqp_url, "list")
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    assert [row["id"] in out, "shop" in out, SECRET in out] == [True, True, False]
    code, out, err = await run(amqp_url, "show", row["id"], "--json")
    shown = json.loads(out)
    assert (code, err) == (0, "")
    assert "not JSON" in shown["detail"]
    assert (shown["id"], shown["body"], shown["headers"]) == (row["id"], "{" + SECRET, {"shot": 7})
    assert (shown["exchange"], shown["routing_key"]) == ("generation.commands", "generation.request")
    assert shown["properties"]["app_id"] == "shop"
    code, out, _ = await run(amqp_url, "show", row["id"])
    assert code == 0
    assert out.endswith("body:\n{" + SECRET + "\n")
    assert [left["id"] for left in await listed(amqp_url)] == [row["id"]]


async def test_a_list_can_be_cut_and_chosen_by_reason(amqp_url: str, link: Link) -> None:
    await put_in(link, b"1", b"2", b"3")
    (other,) = await put_in(link, b"4", reason="idempotency_conflict")
    code, out, _ = await run(amqp_url, "list", "--limit", "2", "--json")
    document = json.loads(out)
    assert (code, document["total"], [row["position"] for row in document["messages"]]) == (0, 4, [1, 2])
    code, out, _ = await run(amqp_url, "list", "--reason", "idempotency_conflict", "--json")
    assert [(row["id"], row["position"]) for row in json.loads(out)["messages"]] == [(other, 4)]


async def test_at_a_terminal_the_list_is_a_table_and_no_text_of_others_moves_the_cursor(
    amqp_url: str, link: Link
) -> None:
    (letter_id,) = await put_in(link, b"\x1b[2Jbody", source="\x1b]0;owned\x07[red]me")
    code, screen = await at_a_terminal(amqp_url, "list")
    assert (code, letter_id in screen, "┃" in screen, "1 of 1" in screen) == (0, True, True, True)
    assert [r"\x1b]0;owned\x07[red]me" in screen, "\x1b]0" in screen] == [True, False]
    code, screen = await at_a_terminal(amqp_url, "show", letter_id)
    assert [r"\x1b[2Jbody" in screen, "\x1b[2J" in screen] == [True, False]


async def test_a_body_that_is_not_text_is_shown_in_base64(amqp_url: str, link: Link) -> None:
    (letter_id,) = await put_in(link, b"\xff\x00")
    _, out, _ = await run(amqp_url, "show", letter_id, "--json")
    assert json.loads(out)["body_base64"] == "/wA="


# -- giving back ------------------------------------------------------------------------------------------------------


async def test_a_replayed_request_is_done_once_even_when_a_crash_had_doubled_it(
    app: App, team: Team, amqp_url: str, link: Link, hub: Sandbox
) -> None:
    await put_in(link, REQUEST, REQUEST)
    code, out, err = await run(amqp_url, "replay", "--all", "--json")
    document = json.loads(out)
    assert (code, err, document["replayed"], document["not_found"]) == (0, "", 2, [])
    assert [message["request_id"] for message in document["messages"]] == ["r-1", "r-1"]
    assert name_of(await team.end_of("r-1")) == "succeeded"
    assert len(hub.ledger()["generations"]) == 1
    assert await listed(amqp_url) == []


async def test_what_is_still_wrong_comes_back_once(app: App, team: Team, amqp_url: str) -> None:
    await team.send(b"not JSON", message_id="no id", reply_to=team.reply_to)
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    (before,) = await listed(amqp_url)
    code, out, _ = await run(amqp_url, "replay", before["id"])
    assert (code, out.splitlines()[-1]) == (0, "replayed: 1")
    await team.wait_for(lambda heard: len(heard.replies) == 2)
    assert team.replies[0]["id"] == team.replies[1]["id"]  # the same message, the same answer
    (after,) = await listed(amqp_url)
    assert {key: after[key] for key in ("reason", "source", "size")} == {
        key: before[key] for key in ("reason", "source", "size")
    }
    assert after["id"] != before["id"]


async def test_a_dry_run_only_tells(amqp_url: str, link: Link) -> None:
    first, _ = await put_in(link, b"1", b"2")
    code, out, _ = await run(amqp_url, "replay", first, "--dry-run")
    assert (code, out) == (0, f"to_replay {first} internal {REQUESTS}\nto_replay: 1\n")
    assert len(await listed(amqp_url)) == 2


async def test_an_id_that_is_not_there_is_told_and_the_others_are_done(amqp_url: str, link: Link) -> None:
    first, second = await put_in(link, b"1", b"2")
    code, out, err = await run(amqp_url, "replay", first, "0" * 12, "--json")
    assert (code, json.loads(out)["replayed"], json.loads(out)["not_found"]) == (1, 1, ["0" * 12])
    assert one_sentence(err), err
    code, out, err = await run(amqp_url, "purge", second, "0" * 12, "--yes")
    assert (code, out.splitlines()[-1], one_sentence(err)) == (1, "purged: 1", True)
    code, out, err = await run(amqp_url, "show", second)
    assert (code, out, one_sentence(err), second in err) == (1, "", True, True)


async def test_a_replay_without_the_queue_fails_and_keeps_the_letter(amqp_url: str, link: Link) -> None:
    await put_in(link, b"1")
    await (await link.channel(confirms=False)).queue_delete(REQUESTS)
    code, out, err = await run(amqp_url, "replay", "--all")
    assert (code, out, one_sentence(err), "drover topology" in err) == (1, "", True, True)
    assert len(await listed(amqp_url)) == 1


# -- throwing away ----------------------------------------------------------------------------------------------------


async def test_a_purge_asks_at_a_terminal_and_is_refused_without_one(amqp_url: str, link: Link) -> None:
    await put_in(link, b"1", b"2")
    code, out, err = await run(amqp_url, "purge", "--all")
    assert (code, out, one_sentence(err), "--yes" in err) == (2, "", True, True)
    ended, screen = await at_a_terminal(amqp_url, "purge", "--all", typed="n\n")
    assert (ended, "[y/N]" in screen) == (1, True)
    assert len(await listed(amqp_url)) == 2
    ended, screen = await at_a_terminal(amqp_url, "purge", "--reason", "internal", typed="y\n")
    assert (ended, "purged: 2" in screen) == (0, True)
    assert await listed(amqp_url) == []


async def test_a_purge_throws_away_what_was_named_and_nothing_else(amqp_url: str, link: Link) -> None:
    first, second, third = await put_in(link, b"1", b"2", b"3")
    code, out, _ = await run(amqp_url, "purge", second, "--yes", "--json")
    assert (code, [message["id"] for message in json.loads(out)["messages"]]) == (0, [second])
    assert [row["id"] for row in await listed(amqp_url)] == [first, third]
    code, out, _ = await run(amqp_url, "purge", "--all", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"purged": 2})


# -- what people get wrong --------------------------------------------------------------------------------------------


async def test_without_the_queue_one_sentence_says_what_to_do(amqp_url: str) -> None:
    code, out, err = await run(amqp_url, "list")
    assert (code, out, one_sentence(err), "drover topology" in err) == (1, "", True, True), err


# -- cancel -----------------------------------------------------------------------------------------------------------


async def test_cancel_ends_a_request_as_a_producers_cancel_does(amqp_url: str, database_url: str) -> None:
    slow = Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False))
    async with slow, running(environment(amqp_url, database_url, slow.url)), Team(amqp_url) as team:
        await team.send({"request_id": "long", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: "submitted" in map(name_of, heard.of("long")))
        code, out, err = await drover("cancel", "long", DROVER_AMQP_URL=amqp_url)
        assert (code, out, err) == (0, "request_id: long\n", "")
        assert name_of(await team.end_of("long")) == "cancelled"


async def test_a_cancel_is_a_message_of_the_contract_and_is_not_swallowed(amqp_url: str, link: Link) -> None:
    code, out, _ = await drover("cancel", "r-1", "--json", DROVER_AMQP_URL=amqp_url)
    assert (code, json.loads(out)) == (0, {"request_id": "r-1"})
    async with Team(amqp_url) as team:
        sent = await team.take("generation.cancels")
    assert (json.loads(sent.body), sent.routing_key) == ({"request_id": "r-1"}, "generation.cancel")
    await (await link.channel(confirms=False)).queue_delete("generation.cancels")
    code, out, err = await drover("cancel", "r-1", DROVER_AMQP_URL=amqp_url)
    assert (code, out, one_sentence(err), "drover topology" in err) == (1, "", True, True), err
