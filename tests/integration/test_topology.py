"""The topology on the broker is the contract's table, to the letter: what is declared once cannot be changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.rabbit.connection import Link
from service.rabbit.topology import declare
from tests.integration.builders import as_user
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio
WORK = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": "generation.dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
QUEUES: dict[str, dict[str, object]] = {
    "generation.requests": {**WORK},
    "generation.cancels": {**WORK},
    "generation.unrouted": {
        "x-queue-type": "quorum",
        "x-message-ttl": 604_800_000,
        "x-max-length": 100_000,
        "x-overflow": "drop-head",
        "x-delivery-limit": 1_000_000,
    },
    "generation.dead": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000},
}
EXCHANGES: dict[str, tuple[str, dict[str, object]]] = {
    "generation.commands": ("topic", {}),
    "generation.events": ("topic", {"alternate-exchange": "generation.unrouted"}),
    "generation.unrouted": ("topic", {}),
    "generation.dead": ("fanout", {}),
}
TERMINAL = ("succeeded", "failed", "cancelled", "expired", "rejected")
BINDINGS = {
    ("generation.commands", "generation.request", "generation.requests"),
    ("generation.commands", "generation.cancel", "generation.cancels"),
    ("generation.dead", "", "generation.dead"),
    *(("generation.unrouted", f"generation.{name}", "generation.unrouted") for name in TERMINAL),
}


@pytest_asyncio.fixture
async def channel(amqp_url: str) -> AsyncIterator[Channel]:
    """A channel in a fresh vhost."""
    link = await Link.open(amqp_url, "test")
    yield await link.channel(confirms=False)
    await link.close()


async def reported(servers: Servers, amqp_url: str, what: str) -> list[dict[str, Any]]:
    """What the management API says of a vhost."""
    vhost = urlsplit(amqp_url).path[1:]
    found: list[dict[str, Any]] = json.loads(await servers.manage("GET", f"/api/{what}/{vhost}"))
    return found


async def test_queues_exchanges_and_bindings_are_those_of_the_contract(
    servers: Servers, amqp_url: str, channel: Channel
) -> None:
    await declare(channel)
    queues = await reported(servers, amqp_url, "queues")
    assert {queue["name"]: queue["arguments"] for queue in queues} == QUEUES
    assert all(queue["durable"] and not queue["auto_delete"] for queue in queues)
    exchanges = [entry for entry in await reported(servers, amqp_url, "exchanges") if entry["name"][:4] == "gene"]
    assert {entry["name"]: (entry["type"], entry["arguments"]) for entry in exchanges} == EXCHANGES
    assert all(entry["durable"] and not entry["auto_delete"] and not entry["internal"] for entry in exchanges)
    bindings = [entry for entry in await reported(servers, amqp_url, "bindings") if entry["source"]]
    assert {(entry["source"], entry["routing_key"], entry["destination"]) for entry in bindings} == BINDINGS


async def test_declaring_again_changes_nothing(servers: Servers, amqp_url: str, channel: Channel) -> None:
    await declare(channel)
    before = await reported(servers, amqp_url, "bindings")
    await declare(channel)
    assert await reported(servers, amqp_url, "bindings") == before


async def test_a_queue_that_is_there_with_other_arguments_is_named_with_what_to_do(channel: Channel) -> None:
    await channel.queue_declare("generation.requests", durable=True)
    with pytest.raises(ConfigurationError) as raised:
        await declare(channel)
    assert str(raised.value).startswith("The queue generation.requests is there with other arguments")
    assert "drover topology" in str(raised.value)


async def test_an_exchange_of_another_kind_is_named(channel: Channel) -> None:
    await channel.exchange_declare("generation.events", exchange_type="fanout", durable=True)
    with pytest.raises(ConfigurationError, match=r"The exchange generation\.events is there"):
        await declare(channel)


async def test_a_user_who_may_not_declare_is_told_what_to_grant(servers: Servers, amqp_url: str) -> None:
    vhost = urlsplit(amqp_url).path[1:]
    await servers.manage("PUT", f"/api/users/{vhost}", json.dumps({"password": vhost, "tags": ""}).encode())
    nothing = json.dumps({"configure": "^$", "write": ".*", "read": ".*"}).encode()
    await servers.manage("PUT", f"/api/permissions/{vhost}/{vhost}", nothing)
    link = await Link.open(as_user(amqp_url, vhost, vhost), "test")
    try:
        with pytest.raises(ConfigurationError, match="grant it configure, write and read"):
            await declare(await link.channel(confirms=False))
    finally:
        await link.close()
        await servers.manage("DELETE", f"/api/users/{vhost}")


async def test_a_wrong_password_is_one_clear_sentence_without_it(amqp_url: str) -> None:
    with pytest.raises(ConfigurationError, match="DROVER_AMQP_URL") as raised:
        await Link.open(as_user(amqp_url, "guest", "a-secret-that-must-not-show"), "test")
    assert "a-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_vhost_that_is_not_there_is_told_apart_from_a_broker_that_is_away(amqp_url: str) -> None:
    with pytest.raises(BrokerUnavailableError, match="does not open the vhost of DROVER_AMQP_URL"):
        await Link.open(amqp_url + "-missing", "test")
