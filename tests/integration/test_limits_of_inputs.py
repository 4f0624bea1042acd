"""Whatever comes in has a size beyond which it is refused or cut (`deploy/SECURITY.md` lists them all)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from service.app import App
from service.clock import utc_now
from service.domain.facts import HubRefused
from service.domain.messages import Message
from service.http import server as http_server
from service.http.server import HttpServer
from service.hub.answers import MAX_TOLD_CHARS, read_generation, read_submit
from service.telemetry import Metrics
from service.wire.requests import RequestRules, read_message
from tests.support.api import Api

pytestmark = pytest.mark.asyncio
RULES = RequestRules()


@pytest_asyncio.fixture
async def api(app: App) -> AsyncIterator[Api]:
    """A caller of a replica."""
    async with Api(f"http://127.0.0.1:{app.http.port}") as caller:
        yield caller


async def status_of(api: Api, method: str, path: str, **options: Any) -> int:
    """What is answered, whatever its body."""
    async with api._session.request(method, path, **options) as response:
        return response.status


async def test_a_call_with_too_much_around_it_is_refused_and_the_next_is_answered(api: Api) -> None:
    for options in (
        {"headers": {"X-Long": "x" * 9000}},
        {"headers": {f"X-{number}": "x" for number in range(200)}},
        {"params": {"cursor": "1" * 9000}},
    ):
        assert await status_of(api, "GET", "/v1/generations", **options) == 400
    assert await status_of(api, "GET", "/v1/generations") == 200


async def test_a_body_that_is_too_long_or_too_deep_is_refused(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    too_long = b'{"input": {"prompt": "' + b"x" * 256 * 1024 + b'"}}'
    assert await status_of(api, "POST", "/v1/generations", data=too_long, headers=headers) == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 16 * 1024

    assert await status_of(api, "POST", "/v1/generations", data=endless(), headers=headers) == 413
    deep = b'{"request_id": "deep", "input": {"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}}"
    assert await status_of(api, "POST", "/v1/generations", data=deep, headers=headers) == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "x" * 201},
        {"target_namespace": "x" * 201},
        {"request_id": "x" * 129},
        {"metadata": {"x": "x" * 8192}},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_field_that_is_too_long_is_refused(fields: dict[str, Any]) -> None:
    body = json.dumps({"request_id": "r", "input": {"prompt": "x"}, **fields}).encode()
    read = read_message(Message(body), RULES, utc_now())
    assert read.fault is not None


async def test_more_calls_at_a_time_than_a_replica_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_CALLS", 2)
    held, going_on = asyncio.Semaphore(0), asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        held.release()
        await going_on.wait()
        return web.json_response({})

    server = HttpServer(
        *("127.0.0.1", 0, Metrics()),
        alive=lambda: None,
        checks={},
        details=dict,
        routes=[web.get("/v1/wait", wait)],
    )
    port = await server.open()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            first = [asyncio.create_task(session.get("/v1/wait")) for _ in range(2)]
            for _ in first:
                await held.acquire()
            async with session.get("/v1/wait") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            async with session.get("/healthz") as health:
                assert health.status == 200
            going_on.set()
            assert [(await answer).status for answer in first] == [200, 200]
            async with session.get("/v1/wait") as answered:
                assert answered.status == 200
    finally:
        await server.close()


async def test_what_the_hub_tells_of_an_error_is_cut() -> None:
    told = "x" * 100_000
    report = read_generation({"generation_id": "g", "status": "failed", "error_message": told, "media_type": told})
    assert report is not None
    assert len(report.error or "") == MAX_TOLD_CHARS
    assert len(report.media_type or "") == 200
    refused = read_submit(422, json.dumps({"error": {"message": told, "type": told}}).encode(), None, utc_now())
    assert isinstance(refused, HubRefused)
    assert len(refused.fault.message) < MAX_TOLD_CHARS + 100
    assert len(str(refused.fault.details)) < 300


@pytest.mark.parametrize("begun", [b"", b"GET /v1/generations HTTP/1.1\r\nHost: "], ids=["nothing", "half a header"])
async def test_a_connection_that_does_not_say_what_it_wants_is_closed(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 0.3)
    server = HttpServer("127.0.0.1", 0, Metrics(), alive=lambda: None, checks={}, details=dict)
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.open())
    try:
        writer.write(begun)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
    finally:
        writer.close()
        await server.close()
