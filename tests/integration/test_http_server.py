"""Health, readiness and metrics of a whole replica, with its servers taken away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from service.app import App
from service.domain.errors import ConfigurationError
from service.http.server import HttpServer
from service.sandbox import Sandbox
from service.settings import load_settings
from service.telemetry import Metrics
from tests.support.broker import wait_ready
from tests.support.bus import Team
from tests.support.proxy import Cable
from tests.support.replica import environment, get

pytestmark = pytest.mark.asyncio


class Replica:
    """A replica in this process, with a cable to each of its servers."""

    def __init__(self, app: App, port: int, database: Cable, broker: Cable) -> None:
        self.app = app
        self.url = f"http://127.0.0.1:{port}"
        self.database = database
        self.broker = broker

    async def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and document of a GET."""
        status, body = await get(self.url + path)
        return status, json.loads(body)


@pytest_asyncio.fixture
async def replica(amqp_url: str, database_url: str, hub: Sandbox) -> AsyncIterator[Replica]:
    """Ready."""
    async with Cable(database_url) as database, Cable(amqp_url) as broker:
        app = App(load_settings(environment(broker.url, database.url, hub.url)))
        port = await app.start()
        await app.wait_ready()
        yield Replica(app, port, database, broker)
        await app.stop()


async def test_a_replica_whose_servers_are_there_is_alive_and_ready(replica: Replica) -> None:
    assert await replica.ask("/healthz") == (200, {"status": "ok", "reason": None})
    status, document = await replica.ask("/readyz")
    assert (status, document["status"], document["reasons"]) == (200, "ready", {})


async def test_without_its_database_it_is_alive_and_not_ready_and_says_why(replica: Replica) -> None:
    await replica.database.unplug()
    status, document = await replica.ask("/readyz")
    assert status == 503
    assert "Postgres" in document["reasons"]["database"]
    assert (await replica.ask("/healthz"))[0] == 200
    await replica.database.plug()
    while (await replica.ask("/readyz"))[0] != 200:
        pass


async def test_without_its_broker_it_is_alive_and_not_ready_and_says_why(replica: Replica) -> None:
    await replica.broker.unplug()
    await wait_ready(lambda: not replica.app.consumer.consuming)
    status, document = await replica.ask("/readyz")
    assert status == 503
    assert document["reasons"]["broker"] == "not consuming generation.requests"
    assert (await replica.ask("/healthz"))[0] == 200
    await replica.broker.plug()
    await replica.app.wait_ready()
    assert (await replica.ask("/readyz"))[0] == 200


async def test_without_the_hub_it_is_ready(replica: Replica, hub: Sandbox) -> None:
    await hub.stop()
    assert (await replica.ask("/readyz"))[0] == 200


async def test_a_draining_replica_is_not_ready(replica: Replica) -> None:
    await replica.app.http.drain()
    status, document = await replica.ask("/readyz")
    assert (status, document["reasons"]) == (503, {"process": "shutting down"})


async def test_metrics_can_be_read_by_prometheus_and_count_what_happened(replica: Replica, amqp_url: str) -> None:
    async with Team(amqp_url) as team:
        await team.send({"request_id": "r-1", "input": {"prompt": "a lighthouse"}})
        await team.end_of("r-1")
    status, body = await get(f"{replica.url}/metrics")
    assert status == 200
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["drover_requests_total", "accepted"] == 1
    assert samples["drover_requests_total", "succeeded"] == 1
    assert samples["drover_submit_duration_seconds_count", "accepted"] == 1
    assert samples["drover_leading",] == 1


def server(port: int, **checks: Any) -> HttpServer:
    """A server alone."""
    return HttpServer("127.0.0.1", port, Metrics(), alive=lambda: None, checks=checks, details=dict)


async def test_a_port_that_is_taken_is_a_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port} .*choose another port"):
            await server(port).open()


async def test_a_check_that_breaks_or_hangs_is_a_reason_and_no_error_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.server.CHECK_TIMEOUT_S", 0.1)

    async def breaks() -> str | None:
        raise ConfigurationError("the password is wrong")

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    http = server(0, broken=breaks, hanging=hangs)
    port = await http.open()
    try:
        status, body = await get(f"http://127.0.0.1:{port}/readyz")
        assert status == 503
        reasons = json.loads(body)["reasons"]
        assert reasons == {"broken": "the password is wrong", "hanging": "no answer within 0.1 s"}
    finally:
        await http.close()
