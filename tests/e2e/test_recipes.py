"""The producer recipes, run as a stranger runs them: as programs, with their own clients, against a real service."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.app import App
from service.sandbox import Sandbox, SandboxOptions
from tests.support.broker import close_connections
from tests.support.bus import Team, name_of
from tests.support.recipes import RECIPES, Stranger, vhost
from tests.support.replica import KEY, environment, running
from tests.support.servers import REPOSITORY, Servers

pytestmark = pytest.mark.asyncio

README_LINES = [
    line.strip()
    for line in (RECIPES / "README.md").read_text().splitlines()
    if line.startswith("    ") and "contracts/recipes/" in line
]
FOLLOWERS = ("python_aio_pika.py", "python_pika.py", "javascript.mjs", "curl.sh")
CALLERS = ("python_rpc.py", "python_rpc.py --direct", "javascript.mjs --rpc")
ALL = (*FOLLOWERS, *CALLERS)
TOPIC = b'{"type": "topic", "durable": true}'
INPUT = '{"prompt": "a lighthouse at dawn", "num_frames": 49}'


@pytest_asyncio.fixture
async def stranger(servers: Servers, amqp_url: str, tmp_path: Path) -> AsyncIterator[Stranger]:
    shell = Stranger(servers, amqp_url, tmp_path)
    yield shell
    await shell.leave()


@pytest_asyncio.fixture
async def slow(amqp_url: str, database_url: str) -> AsyncIterator[Sandbox]:
    """A service at a hub whose generations take longer than any test."""
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False))
    async with hub, running(environment(amqp_url, database_url, hub.url)):
        yield hub


async def publish(
    servers: Servers, amqp_url: str, exchange: str, key: str, body: object, properties: dict[str, Any]
) -> None:
    """One message exactly as it is given, by the management API."""
    message = {
        "routing_key": key,
        "payload": json.dumps(body),
        "payload_encoding": "string",
        "properties": {"delivery_mode": 2, **properties},
    }
    path = f"/api/exchanges/{vhost(amqp_url)}/{exchange}/publish"
    assert json.loads(await servers.manage("POST", path, json.dumps(message).encode())) == {"routed": True}


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith("generation.")]


def readable(told: str) -> bool:
    return 0 < len(told.splitlines()) <= 3 and not any(word in told for word in ("Traceback", "    at ", "Error:"))


def paid(hub: Sandbox) -> int:
    return len(hub.ledger()["generations"])


@pytest.mark.parametrize("line", README_LINES)
async def test_each_line_of_the_readme_ends_with_a_video(line: str, app: App, hub: Sandbox, stranger: Stranger) -> None:
    code, lines, err = await (await stranger.start("bash", "-c", line)).ended()
    assert (code, err) == (0, "")
    events = ["generation.accepted", "generation.submitted", "generation.succeeded"]
    assert names(lines) == (events[-1:] if "rpc" in line else events)
    assert lines[-1].split()[1].startswith(hub.url)
    assert any(line.startswith("request_id: ") for line in lines)
    [generation] = hub.ledger()["generations"]
    assert generation["parameters"]["num_frames"] == 49


async def test_the_readme_has_a_line_for_each_recipe() -> None:
    programs = {path.name for path in RECIPES.iterdir() if path.suffix in (".py", ".mjs", ".sh")}
    assert programs == {name for name in programs if any(name in line for line in README_LINES)}
    assert programs == {recipe.split()[0] for recipe in ALL}


async def test_the_same_request_from_every_recipe_is_paid_once(app: App, hub: Sandbox, stranger: Stranger) -> None:
    ends = set()
    for recipe in ALL:
        code, lines, err = await stranger.run(recipe, INPUT, "order-4711")
        assert (code, err) == (0, ""), recipe
        assert names(lines)[-1] == "generation.succeeded"
        ends.add(next(line for line in lines if line.startswith("generation.succeeded")))
    assert len(ends) == 1
    assert paid(hub) == 1


@pytest.mark.parametrize("recipe", ALL)
async def test_an_invalid_input_ends_with_1_and_says_what_is_wrong(
    recipe: str, app: App, hub: Sandbox, stranger: Stranger
) -> None:
    code, lines, err = await stranger.run(recipe, '{"prompt": "x", "num_frames": 1}')
    assert code == 1
    assert names(lines) == ["generation.rejected"]
    assert readable(err), err
    assert err.startswith("invalid_input: ")
    detail = err.splitlines()[1]
    assert detail.startswith("  /input/num_frames: ")
    assert "less than the minimum of 9" in detail
    assert paid(hub) == 0


@pytest.mark.parametrize("recipe", ALL)
async def test_a_conflict_a_failure_and_an_unusable_id_end_with_1_and_are_named(
    recipe: str, app: App, hub: Sandbox, stranger: Stranger, team: Team
) -> None:
    await team.send({"request_id": "taken", "input": {"prompt": "another"}})
    await team.end_of("taken")
    for prompt, request_id, name, error in (
        ("x", "taken", "generation.rejected", "idempotency_conflict: "),
        ("[fail]", "fails", "generation.failed", "upstream_failed: "),
        ("x", "not an id", "generation.rejected", "invalid_message: "),
    ):
        code, lines, err = await stranger.run(recipe, json.dumps({"prompt": prompt}), request_id)
        assert code == 1
        assert names(lines)[-1] == name
        assert err.startswith(error), err
        assert readable(err), err
    assert paid(hub) == 2


@pytest.mark.parametrize("recipe", ALL)
async def test_what_is_no_json_and_a_broker_without_a_service_end_with_1_and_a_sentence(
    recipe: str, stranger: Stranger
) -> None:
    code, _, err = await stranger.run(recipe, "{prompt: x}")
    assert code == 1
    assert readable(err), err
    code, _, err = await stranger.run(recipe, INPUT)
    assert code == 1
    assert "drover" in err
    assert readable(err), err


@pytest.mark.parametrize("recipe", ALL)
async def test_a_request_that_no_queue_takes_is_told_and_not_taken_for_sent(
    recipe: str, stranger: Stranger, servers: Servers, amqp_url: str
) -> None:
    async with Team(amqp_url):  # which declares `generation.events`
        await servers.manage("PUT", f"/api/exchanges/{vhost(amqp_url)}/generation.commands", TOPIC)
        code, _, err = await stranger.run(recipe, INPUT)
    assert code == 1
    assert "no queue took the message" in err
    assert readable(err), err


FRAMEWORKS: dict[str, tuple[object, dict[str, Any]]] = {
    "Spring AMQP": ({"request_id": "r", "input": {"prompt": "x"}}, {"headers": {"__TypeId__": "com.acme.Request"}}),
    "MassTransit, raw": (
        {"request_id": "r", "input": {"prompt": "x"}},
        {"message_id": "b3a0", "content_type": "application/json", "headers": {"MT-MessageType": "urn:message:Acme"}},
    ),
    "MassTransit": (
        {"messageId": "b3a0", "messageType": ["urn:message:Acme"], "message": {"requestId": "r", "input": {}}},
        {"message_id": "r", "content_type": "application/vnd.masstransit+json"},
    ),
    "NestJS": ({"pattern": "generation.request", "data": {"request_id": "r"}, "id": "b3a0"}, {}),
    "Celery": (
        [[], {"request_id": "r"}, {}],
        {"headers": {"task": "t", "id": "r"}, "content_type": "application/json"},
    ),
}
ANSWERS = {"Spring AMQP": "succeeded", "MassTransit, raw": "succeeded", "MassTransit": "rejected"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_what_frameworks_send(framework: str, app: App, team: Team, servers: Servers, amqp_url: str) -> None:
    body, properties = FRAMEWORKS[framework]
    # Not with aio-pika, which makes up a message id where there is none.
    await publish(servers, amqp_url, "generation.commands", "generation.request", body, properties)
    if framework in ANSWERS:
        assert name_of(await team.end_of("r")) == ANSWERS[framework]
    else:
        assert (await team.take("generation.dead")).headers["x-drover-reason"] == "invalid_message"


async def test_the_program_in_the_main_readme_prints_the_events(app: App, stranger: Stranger) -> None:
    program = (REPOSITORY / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    started = await stranger.start(sys.executable, "-c", program)
    await started.printed(lambda line: line.startswith("drover.generation.succeeded.v1 ['http"))
    started.process.kill()
    await started.ended()


async def test_ctrl_c_cancels_and_the_end_is_followed(slow: Sandbox, stranger: Stranger) -> None:
    recipe = await stranger.begin("python_aio_pika.py", INPUT)
    await recipe.printed(lambda line: line.startswith("generation.submitted"))
    recipe.process.send_signal(signal.SIGINT)
    code, lines, err = await recipe.ended()
    assert (code, names(lines)[-1]) == (1, "generation.cancelled")
    assert "cancelled: " in err
    assert slow.ledger()["generations"][0]["status"] == "cancelled"


async def test_a_cancel_while_the_connection_is_broken_is_sent_until_it_is_confirmed(
    slow: Sandbox, stranger: Stranger, servers: Servers, amqp_url: str
) -> None:
    recipe = await stranger.begin("python_aio_pika.py", INPUT)
    await recipe.printed(lambda line: line.startswith("generation.submitted"))
    await close_connections(servers, amqp_url, "my-team")
    recipe.process.send_signal(signal.SIGINT)
    code, lines, err = await recipe.ended()
    assert (code, names(lines)[-1]) == (1, "generation.cancelled")
    assert "cancelled: " in err


async def test_curl_cancels_too(slow: Sandbox, stranger: Stranger, amqp_url: str) -> None:
    async with Team(amqp_url) as team:
        await team.send({"request_id": "mine", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: len(heard.of("mine")) == 2)
        code, lines, _ = await stranger.run("curl.sh cancel", "mine")
    assert (code, names(lines)) == (1, ["generation.cancelled"])


async def test_killed_and_started_again_with_its_id_it_gets_every_event_and_pays_once(
    app: App, hub: Sandbox, stranger: Stranger, amqp_url: str, team: Team
) -> None:
    hub.faults.answer_delay_s = 1.0
    recipe = await stranger.begin("python_aio_pika.py", INPUT, "mine")
    await recipe.printed(lambda line: line.startswith("generation.accepted"))
    recipe.process.kill()
    await recipe.ended()
    await team.end_of("mine")  # while nobody listens
    code, lines, _ = await stranger.run("python_aio_pika.py", INPUT, "mine")
    assert code == 0
    assert names(lines)[-2:] == ["generation.submitted", "generation.succeeded"]
    assert paid(hub) == 1


@pytest.mark.parametrize("recipe", ["python_aio_pika.py", "python_pika.py", "javascript.mjs"])
async def test_repeats_and_events_of_others_are_not_taken(
    recipe: str, slow: Sandbox, stranger: Stranger, servers: Servers, amqp_url: str
) -> None:
    async with Team(amqp_url) as team:
        started = await stranger.begin(recipe, INPUT, "mine")
        await team.wait_for(lambda heard: len(heard.of("mine")) == 2)
        for event in team.of("mine"):
            await publish(servers, amqp_url, "generation.events", f"generation.{name_of(event)}", event, {})
        await team.send({"request_id": "of-another-team", "input": {"prompt": 5}})
        await team.end_of("of-another-team")
        await team.cancel({"request_id": "mine"})
        _, lines, _ = await started.ended()
    assert names(lines) == ["generation.accepted", "generation.submitted", "generation.cancelled"]


@pytest.mark.parametrize("recipe", ["python_aio_pika.py", "python_pika.py", "javascript.mjs", "javascript.mjs --rpc"])
async def test_a_broken_connection_loses_no_end_and_pays_once(
    recipe: str, slow: Sandbox, stranger: Stranger, servers: Servers, amqp_url: str
) -> None:
    async with Team(amqp_url) as team:
        started = await stranger.begin(recipe, INPUT, "mine")
        await team.wait_for(lambda heard: len(heard.of("mine")) == 2)
        await close_connections(servers, amqp_url, "my-team")
        await team.cancel({"request_id": "mine"})
        code, lines, _ = await started.ended()
    assert (code, names(lines)[-1]) == (1, "generation.cancelled")
    assert paid(slow) == 1


@pytest.mark.parametrize("recipe", ["python_rpc.py", "python_rpc.py --direct"])
async def test_a_call_whose_connection_breaks_has_lost_its_answer_and_says_so(
    recipe: str, slow: Sandbox, stranger: Stranger, servers: Servers, amqp_url: str
) -> None:
    async with Team(amqp_url) as team:
        call = await stranger.begin(recipe, INPUT, "mine")
        await team.wait_for(lambda heard: len(heard.of("mine")) == 2)
        await close_connections(servers, amqp_url, "my-team")
        code, lines, err = await call.ended()
        assert (code, names(lines)) == (1, [])
        assert "call again with the id mine" in err
        again = await stranger.begin(recipe, INPUT, "mine")
        await team.cancel({"request_id": "mine"})
        code, lines, _ = await again.ended()
    assert (code, names(lines)) == (1, ["generation.cancelled"])
    assert paid(slow) == 1
