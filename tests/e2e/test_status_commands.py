"""`drover status` and `drover watch`, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service.app import App
from service.sandbox import Faults, Sandbox
from tests.support.bus import Team
from tests.support.command import drover, one_sentence, start

pytestmark = pytest.mark.asyncio


async def status(variables: dict[str, str], *arguments: str) -> tuple[int, Any]:
    """`drover status ... --json`."""
    code, out, err = await drover("status", *arguments, "--json", **variables)
    assert err == "", err
    return code, json.loads(out)


def request(request_id: str, prompt: str = "a lighthouse") -> dict[str, object]:
    """The smallest request."""
    return {"request_id": request_id, "input": {"prompt": prompt}}


# -- status -----------------------------------------------------------------------------------------------------------


async def test_one_command_says_where_a_video_is(app: App, team: Team, variables: dict[str, str]) -> None:
    await team.send(request("r-1"))
    end = await team.end_of("r-1")
    url = end["data"]["outputs"][0]["url"]
    await wait_published(variables)
    code, document = await status(variables, "r-1")
    [found] = document["requests"]
    assert (code, found["state"], found["found"]) == (0, "succeeded", True)
    assert found["outputs"][0]["url"] == url
    assert [(event["name"], event["published"]) for event in found["events"]] == [
        ("generation.accepted", True),
        ("generation.submitted", True),
        ("generation.succeeded", True),
    ]
    code, out, err = await drover("status", "r-1", **variables)
    assert (code, err) == (0, "")
    assert out.startswith("r-1: succeeded\n  Succeeded ")
    assert url in out


async def wait_published(variables: dict[str, str]) -> None:
    """Waits until the relay has marked all; it has no signal of its own."""
    connection = await asyncpg.connect(variables["DROVER_DATABASE_URL"])
    async with asyncio.timeout(10):
        while await connection.fetchval("select exists (select from unpublished)"):
            await asyncio.sleep(0.02)
    await connection.close()


async def test_what_is_at_the_hub_is_told_with_its_generation(
    app: App, team: Team, hub: Sandbox, variables: dict[str, str]
) -> None:
    hub.faults = Faults(never_ending=1)
    await team.send(request("r-1"))
    await team.wait_for(lambda heard: len(heard.events) == 2)
    code, document = await status(variables, "r-1")
    [found] = document["requests"]
    generation = hub.ledger()["generations"][0]["generation_id"]
    assert (code, found["state"]) == (0, "submitted")
    assert generation in found["explanation"]["waits_for"]


async def test_of_several_ids_each_is_told_and_one_that_is_missing_makes_it_1(
    app: App, team: Team, variables: dict[str, str]
) -> None:
    await team.send(request("r-1"))
    await team.send(b"{", message_id="r-2", reply_to=team.reply_to)
    await team.send({"request_id": "r-3", "input": {"prompt": 1}})
    await team.end_of("r-1")
    await team.end_of("r-3")
    await team.wait_for(lambda heard: bool(heard.replies))
    await team.cancel({"request_id": "r-4"})
    await drained(variables)
    code, document = await status(variables, "r-1", "r-2", "r-3", "r-4", "r-5")
    found = {entry["request_id"]: entry for entry in document["requests"]}
    told = {request_id: entry["explanation"] for request_id, entry in found.items()}
    assert (code, [entry["found"] for entry in found.values()]) == (1, [True, False, False, False, False])
    assert "was rejected" in told["r-2"]["now"]
    assert "was rejected" in told["r-3"]["now"]
    assert found["r-3"]["events"][0]["fault"]["details"][0]["path"] == "/input/prompt"
    assert "A cancel waits for it" in told["r-4"]["now"]
    assert "generation.commands" in told["r-5"]["advice"]


async def drained(variables: dict[str, str]) -> None:
    """Waits until the early cancel is kept."""
    connection = await asyncpg.connect(variables["DROVER_DATABASE_URL"])
    async with asyncio.timeout(10):
        while not await connection.fetchval("select exists (select from early_cancels)"):
            await asyncio.sleep(0.02)
    await connection.close()


async def test_what_is_in_quarantine_is_found_by_its_id(app: App, team: Team, variables: dict[str, str]) -> None:
    await team.send(request("r-1", "first"))
    await team.end_of("r-1")
    await team.send({**request("r-1", "other"), "metadata": {}}, reply_to=team.reply_to)
    await team.wait_for(lambda heard: bool(heard.replies))
    await app.database.fetch("delete_ended_requests", *later())
    code, document = await status(variables, "r-1")
    [found] = document["requests"]
    assert code == 1
    assert "is in quarantine" in found["explanation"]["now"]
    assert "idempotency_conflict" in found["explanation"]["now"]
    assert "drover dead show" in found["explanation"]["advice"]


def later() -> tuple[Any, int]:
    """As if the retention were over."""
    return datetime.now(UTC) + timedelta(days=1), 100


async def test_without_an_id_it_says_how_all_are(app: App, team: Team, hub: Sandbox, variables: dict[str, str]) -> None:
    hub.faults = Faults(never_ending=1)
    for number in range(3):
        await team.send(request(f"r-{number}"))
    await team.wait_for(lambda heard: len(heard.events) == 6)
    code, document = await status(variables)
    assert (code, document["counts"]["submitted"], document["leader"]) == (0, 3, app.holder)
    code, out, _ = await drover("status", **variables)
    assert (code, "submitted   3\n" in out, app.holder in out) == (0, True, True)


async def test_without_a_database_or_with_an_id_that_is_none_it_is_one_sentence(variables: dict[str, str]) -> None:
    away = {**variables, "DROVER_DATABASE_URL": "postgresql://u:CANARY@127.0.0.1:1/x"}
    for command in ("status", "watch"):
        code, out, err = await drover(command, **away)
        assert (code, out, one_sentence(err), "CANARY" in err) == (1, "", True, False), err
    code, _, err = await drover("status", "not an id", **variables)
    assert (code, one_sentence(err)) == (2, True)


# -- watch ------------------------------------------------------------------------------------------------------------


async def test_without_a_terminal_each_change_is_a_line_and_ctrl_c_ends_with_130(
    app: App, team: Team, variables: dict[str, str]
) -> None:
    process = await start("watch", "--json", "--interval", "0.02", "--source", "mine", variables=variables)
    assert process.stdout is not None
    await team.send(request("r-0"), app_id="other")
    await team.send(request("r-1"), app_id="mine")
    changes = []
    async with asyncio.timeout(20):
        async for line in process.stdout:
            changes.append(json.loads(line))
            if changes[-1]["state"] == "succeeded":
                break
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 130
    assert {change["request_id"] for change in changes} == {"r-1"}
    assert changes[0]["was"] is None
    assert [change["was"] for change in changes[1:]] == [change["state"] for change in changes[:-1]]
    assert changes[-1]["outputs"][0][2].startswith("http")


async def test_a_state_can_be_chosen(app: App, team: Team, hub: Sandbox, variables: dict[str, str]) -> None:
    await team.send(request("r-0"))
    await team.end_of("r-0")
    hub.faults = Faults(never_ending=1)
    await team.send(request("r-1"))
    await team.wait_for(lambda heard: len(heard.events) == 5)
    process = await start("watch", "--status", "submitted", "--status", "in_doubt", variables=variables)
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 20)
    assert line.split()[1:3] == ["r-1", "submitted"]


async def test_at_a_terminal_it_is_a_table_that_renews_itself(app: App, team: Team, variables: dict[str, str]) -> None:
    await team.send(request("r-1"), app_id="\x1b]0;owned\x07")
    await team.end_of("r-1")
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    shown = {**variables, "TERM": "xterm", "LINES": "40"}
    process = await start("watch", "--interval", "0.05", variables=shown, **streams)
    os.close(slave)
    screen = await asyncio.to_thread(read_until, master, "succeeded", 2)
    process.send_signal(signal.SIGINT)
    rest = asyncio.create_task(asyncio.to_thread(read_until, master, "no such word", 1))
    assert await asyncio.wait_for(process.wait(), 20) == 130
    await rest
    os.close(master)
    assert [word in screen for word in ("r-1", "request_id", "leader: ")] == [True] * 3
    assert [r"\x1b]0;owned" in screen, "\x1b]0" in screen] == [True, False]


def read_until(descriptor: int, word: str, times: int) -> str:
    """What the terminal was sent, until the word has come so often, or nobody writes any more."""
    read = ""
    try:
        while read.count(word) < times:
            read += os.read(descriptor, 65536).decode(errors="replace")
    except OSError:
        pass
    return read
