"""RabbitMQ's permissions: what a replica, a producer and a consumer need, each without more (`deploy/SECURITY.md`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import aio_pika
import aiormq
import pytest
import pytest_asyncio

from service.domain.errors import ConfigurationError
from service.rabbit.connection import Link
from service.rabbit.topology import DEAD, declare, provide
from service.sandbox import Sandbox
from tests.integration.builders import as_user
from tests.support.bus import Team, name_of
from tests.support.command import drover
from tests.support.replica import Process, environment, running
from tests.support.servers import REPOSITORY, Servers

pytestmark = pytest.mark.asyncio
PAGE = (REPOSITORY / "deploy" / "SECURITY.md").read_text("utf-8")
PASSWORD = "tr0ub4dor"


class Permissions(NamedTuple):
    """Regular expressions over the names of exchanges and queues."""

    configure: str
    write: str
    read: str


def documented(role: str) -> Permissions:
    """As an operator types them: `rabbitmqctl set_permissions -p VHOST ROLE CONFIGURE WRITE READ`."""
    (line,) = (
        line for line in PAGE.splitlines() if line.strip().startswith(f"rabbitmqctl set_permissions -p / {role} ")
    )
    _, configure, _, write, _, read, _ = line.split("'")
    return Permissions(configure, write, read)


def documented_topic(role: str) -> tuple[str, str, str]:
    """Exchange, write and read of a user's topic permissions."""
    words = f"rabbitmqctl set_topic_permissions -p / {role} "
    (line,) = (line.strip() for line in PAGE.splitlines() if line.strip().startswith(words))
    exchange = line.removeprefix(words).split()[0]
    _, write, _, read, _ = line.split("'")
    return exchange, write, read


class Users:
    """Users of one vhost, who go with the test."""

    def __init__(self, servers: Servers, amqp_url: str) -> None:
        self._servers = servers
        self._url = amqp_url
        self.vhost = urlsplit(amqp_url).path[1:]
        self._made: set[str] = set()

    def name(self, role: str) -> str:
        """Of this test's user in a role."""
        return f"{role}-{self.vhost}"

    async def allow(self, role: str, permissions: Permissions) -> str:
        """Makes the user, or changes what it may; its URL."""
        name = self.name(role)
        if name not in self._made:
            await self._put(f"users/{name}", {"password": PASSWORD, "tags": ""})
            self._made.add(name)
        await self._put(f"permissions/{self.vhost}/{name}", permissions._asdict())
        return as_user(self._url, name, PASSWORD)

    async def allow_topics(self, role: str, exchange: str, write: str, read: str) -> None:
        """Routing keys at a topic exchange."""
        body = {"exchange": exchange, "write": write, "read": read}
        await self._put(f"topic-permissions/{self.vhost}/{self.name(role)}", body)

    async def _put(self, path: str, body: object) -> None:
        await self._servers.manage("PUT", f"/api/{path}", json.dumps(body).encode())

    async def drop(self) -> None:
        """All of them."""
        for name in self._made:
            await self._servers.manage("DELETE", f"/api/users/{name}")


@pytest_asyncio.fixture
async def users(servers: Servers, amqp_url: str) -> AsyncIterator[Users]:
    """Nobody yet."""
    made = Users(servers, amqp_url)
    yield made
    await made.drop()


@pytest_asyncio.fixture
async def declared(amqp_url: str) -> AsyncIterator[Link]:
    """The topology, by an administrator."""
    link = await Link.open(amqp_url, "test")
    await declare(await link.channel(confirms=False))
    yield link
    await link.close()


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """With confirms; a refusal closes it, so each try has its own."""
    connection = await aio_pika.connect(url)
    yield await connection.channel()
    await connection.close()


async def published(url: str, exchange: str, key: str) -> bool:
    """Whether the broker takes it."""
    async with channel_of(url) as channel:
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        try:
            await target.publish(aio_pika.Message(b"{}"), key, mandatory=False)
        except aiormq.exceptions.ChannelAccessRefused:
            return False
        return True


# -- a replica --------------------------------------------------------------------------------------------------------


async def test_a_replica_works_on_what_another_user_declared(
    users: Users, declared: Link, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    url = await users.allow("drover", documented("drover"))
    variables = environment(url, database_url, hub.url)
    async with running(variables), Team(amqp_url) as team:
        await team.cancel({"request_id": "cancelled"})
        await team.send({"request_id": "good", "input": {"prompt": "x"}}, reply_to=team.reply_to)
        await team.send({"request_id": "bad", "input": {"prompt": 5}})
        await team.send({"request_id": "cancelled", "input": {"prompt": "x"}})
        await team.send(b"not JSON", message_id="no id")
        ends = [name_of(await team.end_of(each)) for each in ("good", "bad", "cancelled")]
        assert ends == ["succeeded", "rejected", "cancelled"]
        await team.wait_for(lambda heard: len(heard.replies) == 1)
        assert (await team.take(DEAD)).body == b"not JSON"
        code, out, _ = await drover("doctor", "--json", **variables)
    assert code == 0, out
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert "may not declare them" in checks["broker.topology"]["found"]
    assert checks["broker.permissions"]["level"] == "ok"


@pytest.mark.parametrize(
    ("lacking", "tells"),
    [
        (r"write generation\.events", "publish to the exchange generation.events"),
        (r"write generation\.dead", "publish to the exchange generation.dead"),
        (r"write generation\.commands", "publish to the exchange generation.commands"),
        (r"write amq\.default", "publish to the default exchange"),
        (r"read requests", "consume the queue generation.requests"),
        (r"read cancels", "consume the queue generation.cancels"),
    ],
)
async def test_each_of_a_replicas_permissions_is_needed_and_doctor_names_the_one_that_lacks(
    users: Users, declared: Link, variables: dict[str, str], lacking: str, tells: str
) -> None:
    which, name = lacking.split(" ")
    granted = documented("drover")
    before: str = getattr(granted, which)
    reduced = before.replace(f"{name}|", "").replace(f"|{name}", "")
    assert reduced != before
    url = await users.allow("drover", granted._replace(**{which: reduced}))
    code, out, _ = await drover("doctor", "--json", **{**variables, "DROVER_AMQP_URL": url})
    faults = [check["found"] for check in json.loads(out)["checks"] if check["level"] == "fault"]
    assert (code, len(faults)) == (1, 1), out
    assert tells in faults[0]


@pytest.mark.parametrize(
    "doing",
    [
        lambda channel: channel.declare_queue("mine"),
        lambda channel: channel.declare_exchange("mine"),
        lambda channel: channel.queue_delete(DEAD),
        lambda channel: channel.exchange_delete("generation.events"),
    ],
    ids=["declare a queue", "declare an exchange", "delete a queue", "delete an exchange"],
)
async def test_a_replica_may_not_declare_or_delete(
    users: Users, declared: Link, doing: Callable[[aio_pika.abc.AbstractChannel], Awaitable[object]]
) -> None:
    async with channel_of(await users.allow("drover", documented("drover"))) as channel:
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await doing(channel)


async def test_a_replica_may_not_read_the_quarantine(users: Users, declared: Link) -> None:
    async with channel_of(await users.allow("drover", documented("drover"))) as channel:
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await (await channel.get_queue(DEAD, ensure=False)).get()


async def test_what_is_missing_and_may_not_be_declared_is_named_with_what_to_do(users: Users, amqp_url: str) -> None:
    link = await Link.open(await users.allow("drover", documented("drover")), "test")
    with pytest.raises(ConfigurationError, match=r"^The exchange generation\.dead is not there\.") as caught:
        await provide(link)
    assert "run `drover topology` as a user who may" in str(caught.value)
    assert not link.lost.is_set(), "a refusal is an answer, and no lost connection"
    await link.close()


async def test_whoever_may_declare_and_not_bind_does_not_work_on_a_queue_that_nothing_reaches(
    users: Users, amqp_url: str
) -> None:
    """What it has declared is there, and unbound: cancels would go nowhere, and nobody would be told."""
    may = Permissions(r"^generation\.", r"^generation\.(?!cancels)", r"^generation\.")
    link = await Link.open(await users.allow("drover", may), "test")
    with pytest.raises(ConfigurationError, match=r"bind the queue generation\.cancels to generation\.commands"):
        await provide(link)
    await link.close()


async def test_a_replica_that_waits_for_its_topology_goes_on_when_it_has_come(
    users: Users, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    url = await users.allow("drover", documented("drover"))
    async with Process(environment(url, database_url, hub.url)) as service:
        assert "is not there" in (await service.logged("consumer.not_connected"))["reason"]
        code, _, err = await drover("topology", DROVER_AMQP_URL=amqp_url)
        assert (code, err) == (0, "")
        await service.ready()


# -- people -----------------------------------------------------------------------------------------------------------


async def test_an_administrator_declares_the_topology(users: Users) -> None:
    url = await users.allow("admin", documented("admin"))
    code, _, err = await drover("topology", DROVER_AMQP_URL=url)
    assert (code, err) == (0, "")


async def test_an_operator_works_with_the_commands(
    users: Users, amqp_url: str, database_url: str, hub: Sandbox, declared: Link
) -> None:
    url = await users.allow("operator", documented("operator"))
    own = environment(url, database_url, hub.url)
    async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
        assert (await drover("submit", "--prompt", "x", "--request-id", "mine", "--wait", **own))[0] == 0
        assert (await drover("cancel", "mine", **own))[0] == 0
        await team.send(b"not JSON", message_id="no id")
        code, out, _ = await drover("status", "unheard-of", **own)
        assert (code, "not" in out) == (1, True)
        code, out, _ = await drover("dead", "list", "--json", **own)
        (letter,) = json.loads(out)["messages"]
        assert (await drover("dead", "replay", letter["id"], **own))[0] == 0
        code, _, _ = await drover("topology", **own)
        assert code == 2


# -- others -----------------------------------------------------------------------------------------------------------


async def test_a_producer_may_send_requests_and_nothing_else(users: Users, declared: Link) -> None:
    url = await users.allow("producer", documented("producer"))
    await users.allow_topics("producer", *documented_topic("producer"))
    assert await published(url, "generation.commands", "generation.request")
    assert not await published(url, "generation.commands", "generation.cancel")
    for exchange, key in (("generation.events", "generation.succeeded"), ("generation.dead", ""), ("", DEAD)):
        assert not await published(url, exchange, key)
    async with channel_of(url) as channel:
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await (await channel.get_queue("generation.requests", ensure=False)).get()


async def test_a_producer_hears_replies_by_direct_reply_to_without_more(
    users: Users, declared: Link, database_url: str, hub: Sandbox, amqp_url: str
) -> None:
    url = await users.allow("producer", documented("producer"))
    async with running(environment(amqp_url, database_url, hub.url)):
        connection = await aio_pika.connect(url)
        channel = await connection.channel()
        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        heard: list[bytes] = []
        async with replies.iterator(no_ack=True, timeout=20) as messages:
            body = json.dumps({"request_id": "asked", "input": {"prompt": "x"}}).encode()
            message = aio_pika.Message(body, reply_to="amq.rabbitmq.reply-to")
            commands = await channel.get_exchange("generation.commands", ensure=False)
            await commands.publish(message, "generation.request")
            heard.append((await anext(messages)).body)
        await connection.close()
    assert json.loads(heard[0])["type"] == "drover.generation.succeeded.v1"


async def test_a_consumer_hears_the_ends_in_a_queue_of_its_own_and_may_send_nothing(
    users: Users, declared: Link, amqp_url: str
) -> None:
    url = await users.allow("shop", documented("shop"))
    await users.allow_topics("shop", *documented_topic("shop"))
    async with channel_of(url) as channel:
        inbox = await channel.declare_queue("shop.inbox", durable=True)
        await inbox.bind("generation.events", "generation.succeeded")
        assert await published(amqp_url, "generation.events", "generation.succeeded")
        async with inbox.iterator(timeout=10) as messages:
            await (await anext(messages)).ack()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await inbox.bind("generation.commands", "generation.request")
    for exchange, key in (("generation.commands", "generation.request"), ("generation.events", "generation.failed")):
        assert not await published(url, exchange, key)


async def test_a_name_that_is_not_ones_own_is_refused_by_the_broker(users: Users, declared: Link) -> None:
    """So `user_id`, which the source is taken from, can be trusted."""
    async with channel_of(await users.allow("producer", documented("producer"))) as channel:
        commands = await channel.get_exchange("generation.commands", ensure=False)
        with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed):
            await commands.publish(aio_pika.Message(b"{}", user_id="somebody-else"), "generation.request")
