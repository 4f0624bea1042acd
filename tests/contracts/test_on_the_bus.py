"""The examples as they are committed, sent to a running service; whatever comes back fits the schemas."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.app import App
from service.contracts.examples import examples
from service.sandbox import Sandbox, SandboxOptions
from service.wire.envelope import CLOUDEVENTS_JSON
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, environment, running
from tests.support.schemas import event_faults

pytestmark = pytest.mark.asyncio
EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUESTS = [name for name, example in examples().items() if example.message.startswith("generation.request")]
CANCELS = [name for name in examples() if name.partition("-")[0] == "cancel"]


def committed(name: str) -> bytes:
    return (EXAMPLES / f"{name}.json").read_bytes()


def id_in(body: bytes) -> str:
    document = json.loads(body)
    return str(document.get("data", document)["request_id"])


def properties_of(name: str) -> dict[str, Any]:
    return {"content_type": CLOUDEVENTS_JSON if name.endswith("-cloudevents") else "application/json"}


def submitted(request_id: str, heard: Team) -> bool:
    return any(name_of(event) == "submitted" for event in heard.of(request_id))


@pytest_asyncio.fixture
async def slow() -> AsyncIterator[Sandbox]:
    """A hub whose generations take longer than any test."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture
async def replica(amqp_url: str, database_url: str, hub: Sandbox) -> AsyncIterator[App]:
    """A replica that may bill the namespace of the examples."""
    async with running(environment(amqp_url, database_url, hub.url, DROVER_TARGET_NAMESPACES="studio")) as app:
        yield app


@pytest_asyncio.fixture
async def waiting(amqp_url: str, database_url: str, slow: Sandbox) -> AsyncIterator[App]:
    """The same at the slow hub."""
    async with running(environment(amqp_url, database_url, slow.url, DROVER_TARGET_NAMESPACES="studio")) as app:
        yield app


@pytest_asyncio.fixture
async def team(amqp_url: str) -> AsyncIterator[Team]:
    """A team on the bus, without a replica of its own. All that it heard fits the schemas when it leaves."""
    async with Team(amqp_url) as on_the_bus:
        yield on_the_bus
    assert on_the_bus.events
    for event in (*on_the_bus.events, *on_the_bus.replies):
        assert event_faults(event) == [], event


async def test_every_example_of_a_request_is_generated(replica: App, team: Team) -> None:
    assert len(REQUESTS) == 3
    for name in REQUESTS:
        await team.send(
            committed(name),
            reply_to=team.reply_to,
            correlation_id=name,
            headers={"traceparent": TRACEPARENT},
            **properties_of(name),
        )
    for name in REQUESTS:
        end = await team.end_of(id_in(committed(name)))
        assert name_of(end) == "succeeded"
    await team.wait_for(lambda heard: len(heard.replies) == len(REQUESTS))
    assert {name_of(event) for event in team.events} == {"accepted", "submitted", "output", "succeeded"}


async def test_every_example_of_a_cancel_ends_its_request(waiting: App, team: Team) -> None:
    assert len(CANCELS) == 2
    requests = {id_in(body): body for body in map(committed, REQUESTS)}
    for name in CANCELS:
        cancel = committed(name)
        request_id = id_in(cancel)
        await team.send(requests[request_id])
        await team.wait_for(partial(submitted, request_id))
        await team.cancel(cancel, reply_to=team.reply_to, **properties_of(name))
        assert name_of(await team.end_of(request_id)) == "cancelled"


async def test_failures_of_every_kind_fit_their_schemas(replica: App, team: Team) -> None:
    prompt = {"prompt": "x"}
    bodies: dict[str, dict[str, Any]] = {
        "failed": {"input": {"prompt": "this will [fail]"}},
        "rejected": {"input": {**prompt, "num_frames": 600}},
        "expired": {"input": prompt, "deadline": "2020-01-01T00:00:00Z"},
    }
    for request_id, body in bodies.items():
        await team.send({"request_id": request_id, **body}, reply_to=team.reply_to)
    for request_id in bodies:
        assert name_of(await team.end_of(request_id)) == request_id
    unanswerable = (b"{}", b"no JSON", b'{"request_id":"failed","input":{}}')
    for raw in unanswerable:
        await team.send(raw, reply_to=team.reply_to)
    await team.wait_for(lambda heard: len(heard.replies) == len(bodies) + len(unanswerable))
    assert {event["data"]["error"]["code"] for event in team.replies} == {
        "upstream_failed",
        "invalid_input",
        "deadline_exceeded",
        "invalid_message",
        "idempotency_conflict",
    }
