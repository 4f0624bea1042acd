"""`DELETE /v1/generations/{request_id}`: a cancel for who has no AMQP at hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from service.app import App
from service.sandbox import Sandbox, SandboxOptions
from service.settings import load_settings
from tests.support.bus import Team, name_of
from tests.support.proxy import Cable
from tests.support.replica import KEY, environment

pytestmark = pytest.mark.asyncio
Answer = tuple[int, str, dict[str, Any]]


class Api:
    """A replica's HTTP side."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def delete(self, request_id: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Status, content type and document."""
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{self._url}/v1/generations/{request_id}", headers=headers) as response,
        ):
            return response.status, response.content_type, json.loads(await response.read())


@asynccontextmanager
async def replica(amqp_url: str, database_url: str, hub: Sandbox, **more: str) -> AsyncIterator[Api]:
    app = App(load_settings(environment(amqp_url, database_url, hub.url, **more)))
    port = await app.start()
    await app.wait_ready()
    yield Api(f"http://127.0.0.1:{port}")
    await app.stop()


async def test_a_delete_cancels_the_generation_at_the_hub(amqp_url: str, database_url: str) -> None:
    options = SandboxOptions(api_key=KEY, delay_s=600, render=False)
    async with (
        Sandbox(options) as slow,
        replica(amqp_url, database_url, slow) as api,
        Team(amqp_url) as team,
    ):
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
        assert await api.delete("r") == (202, "application/json", {"request_id": "r", "status": "pending"})
        assert name_of(await team.end_of("r")) == "cancelled"
        assert [generation["status"] for generation in slow.ledger()["generations"]] == ["cancelled"]


async def test_it_is_refused_without_one_of_the_tokens_and_says_how_to_send_one(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with replica(amqp_url, database_url, hub, DROVER_API_TOKENS="one,two") as api, Team(amqp_url) as team:
        status, kind, document = await api.delete("r")
        assert (status, kind, document["status"]) == (401, "application/problem+json", 401)
        assert "DROVER_API_TOKENS" in document["detail"]
        assert await team.ready_messages("generation.cancels") == 0
        assert (await api.delete("r", {"Authorization": "Bearer two"}))[0] == 202


async def test_what_is_no_id_is_refused_as_such(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    async with replica(amqp_url, database_url, hub) as api:
        assert (await api.delete("a%20b"))[:2] == (422, "application/problem+json")


async def test_a_broker_that_does_not_confirm_makes_it_503(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    async with Cable(amqp_url) as broker, replica(broker.url, database_url, hub) as api:
        await broker.unplug()
        assert (await api.delete("r"))[:2] == (503, "application/problem+json")
        await broker.plug()
