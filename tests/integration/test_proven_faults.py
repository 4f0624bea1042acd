"""Faults that a review proved, and that shall not come back: each test is the shortest form of its proof."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import aio_pika
import asyncpg
import pytest
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from msgspec.structs import replace

from service.domain.errors import BrokerUnavailableError, DatabaseUnavailableError, ErrorCode
from service.domain.facts import HubAccepted
from service.domain.messages import Repeat
from service.domain.states import EventName, Request, RequestState
from service.postgres.database import _translated
from service.postgres.leader import LeaseStore
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from service.rabbit.bus import RabbitBus
from service.rabbit.connection import Link, translated
from service.rabbit.properties import Properties, tolerate_odd_properties
from service.sandbox import Sandbox
from service.sandbox.schemas import STILL
from service.telemetry import Metrics
from service.workers.catalogue import Catalogue
from service.workers.relay import Relay
from service.workers.settler import Case, Elsewhere, Settler
from service.workers.wakeups import Wakeups
from tests.integration.builders import NOW, claimed, decided, hash_of, new_request, stored, submitted, succeeded
from tests.support.bus import Team, name_of
from tests.support.replica import environment, running

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("instead", [TimeoutError("while giving the connection back"), OSError("reset"), None])
@pytest.mark.parametrize("adapter", [lambda: _translated("x"), lambda: translated("x")], ids=["postgres", "rabbit"])
async def test_whoever_was_cancelled_stays_cancelled_whatever_a_driver_makes_of_it(
    adapter: Callable[[], AbstractContextManager[None]], instead: Exception | None
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with adapter():
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if instead is not None:
                    raise instead from None

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_in_a_task_that_nobody_cancelled_is_an_error() -> None:
    with pytest.raises(DatabaseUnavailableError), _translated("x"):
        raise TimeoutError
    with pytest.raises(BrokerUnavailableError), translated("x"):
        raise TimeoutError


async def test_a_balancer_that_has_no_broker_behind_it_is_a_broker_that_is_away() -> None:
    """It accepts and closes. On uvloop the driver then says StopAsyncIteration, more often than not."""

    async def connect() -> None:
        for _ in range(20):
            with pytest.raises(BrokerUnavailableError, match="could not be reached"):
                await Link.open(f"amqp://guest:guest@127.0.0.1:{balancer.getsockname()[1]}/", "test")

    def close_each() -> None:
        with suppress(OSError):
            while True:
                balancer.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as balancer:
        closing = asyncio.create_task(asyncio.to_thread(close_each))
        try:
            await asyncio.to_thread(lambda: uvloop.run(connect()))
        finally:
            balancer.shutdown(socket.SHUT_RDWR)
            await closing


async def test_a_reply_address_that_breaks_connections_is_counted_and_harms_no_event(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    # Begins like an address of direct reply-to, and is none: RabbitMQ 3.10 ends the connection with 541.
    poison = "amq.rabbitmq.reply-to.g1h2QUJD.eHl6"
    async with running(environment(amqp_url, database_url, hub.url)) as app, Team(amqp_url) as team:
        await team.send({"request_id": "poison", "input": {"prompt": "x"}}, reply_to=poison)
        await team.send({"request_id": "good", "input": {"prompt": "x"}}, reply_to=team.reply_to)
        for request_id in ("poison", "good"):
            assert name_of(await team.end_of(request_id)) == "succeeded"
        await team.wait_for(lambda heard: len(heard.replies) == 1)
        async with asyncio.timeout(20):
            while await app.outbox.backlog(10):
                await asyncio.sleep(0.05)  # what is marked tells nobody
        assert len(team.ends("poison")) == 1
        assert app.bus.connected


@pytest.mark.parametrize("token", ["%%%.x", "bm90LWEtcGlk.eHl6", "g1h2QUJD", ""])
async def test_nonsense_for_direct_reply_to_is_refused_at_the_door(
    token: str, amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
        nonsense = f"amq.rabbitmq.reply-to.{token}"
        await team.send({"request_id": "odd", "input": {"prompt": "x"}}, reply_to=nonsense)
        assert name_of(await team.end_of("odd")) == "rejected"


async def test_a_caller_with_direct_reply_to_gets_its_answer(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    async with running(environment(amqp_url, database_url, hub.url)):
        connection = await aio_pika.connect(amqp_url)
        async with connection:
            channel = await connection.channel()
            answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)

            async def on_answer(message: AbstractIncomingMessage) -> None:
                answered.set_result(message.body)

            await replies.consume(on_answer, no_ack=True)
            commands = await channel.get_exchange("generation.commands")
            body = json.dumps({"request_id": "rpc", "input": {"prompt": "x"}}).encode()
            message = aio_pika.Message(body, reply_to="amq.rabbitmq.reply-to")
            await commands.publish(message, "generation.request")
            assert json.loads(await asyncio.wait_for(answered, 20))["type"] == "drover.generation.succeeded.v1"


async def test_a_repeat_that_meets_the_end_of_its_request_is_answered(
    store: RequestStore, outbox: Outbox, database_url: str
) -> None:
    (request,) = await submitted(store, "r-1")
    blocker = await asyncpg.connect(database_url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("select from requests where request_id = 'r-1' for update")
    end = asyncio.create_task(store.apply([decided(request, succeeded("g-r-1-0"))], NOW))
    await _waiting_for_locks(blocker, 1)
    repeat = asyncio.create_task(store.repeat([Repeat("r-1", hash_of("r-1"), None, "late")], NOW))
    await _waiting_for_locks(blocker, 2)
    await transaction.commit()
    assert await end == {"r-1"}
    assert await repeat == {"r-1"}
    await blocker.close()
    assert [row.event.reply_to for row in await outbox.due(10, NOW) if row.event.terminal] == [None, "late"]


async def _waiting_for_locks(connection: asyncpg.Connection[asyncpg.Record], count: int) -> None:
    async with asyncio.timeout(10):
        while await connection.fetchval("select count(*) from pg_locks where not granted") < count:
            await asyncio.sleep(0.01)  # a lock that is waited for has no signal


async def test_a_generation_of_another_request_ends_the_second_one_and_is_not_asked_for_again(
    store: RequestStore, outbox: Outbox
) -> None:
    settler = Settler(store, outbox, Wakeups(), Metrics(), elsewhere=Elsewhere(outbox))
    await submitted(store, "first")
    (second,) = await claimed(store, "second")
    await settler.settle([Case("second", [HubAccepted(("g-first-0",))], second)])
    after = (await store.load(["second"]))["second"]
    assert after.state is RequestState.FAILED
    assert after.error is not None
    assert after.error.code is ErrorCode.OUTCOME_UNKNOWN
    assert (await store.load(["first"]))["first"].state is RequestState.SUBMITTED


async def test_a_model_is_asked_for_once_for_all_who_wait(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    async with running(environment(amqp_url, database_url, hub.url)) as app:
        fresh = Catalogue(app.hub, {})
        before = hub.ledger()["calls"]["models"]
        await asyncio.gather(*(fresh.look_up(STILL) for _ in range(200)))
        assert hub.ledger()["calls"]["models"] == before + 1


async def test_an_event_that_cannot_be_written_waits_apart_while_the_others_go_out(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    term = await lease.take(600)
    assert term is not None
    odd = new_request("odd")
    odd = replace(odd, request=replace(odd.request, correlation_id="x" * 256))  # AMQP has room for 255
    await stored(store, new_request("one"), odd, new_request("two"))
    bus = RabbitBus(amqp_url)
    connecting = asyncio.create_task(bus.run())
    await bus.wait_connected(10)
    relay = Relay(outbox, bus, Wakeups(), Metrics(), term=term)
    assert await relay.run_once() == 2
    assert await outbox.backlog(10) == 1
    assert await relay.run_once() == 0
    connecting.cancel()
    await asyncio.gather(connecting, bus.close(), return_exceptions=True)


async def test_fewer_ids_than_asked_for_leave_the_rest_lost_and_never_a_full_success() -> None:
    decision, events = decided(_asked_for(4), HubAccepted(("g0", "g1")), succeeded("g0"), succeeded("g1"))
    assert decision.after.state is RequestState.SUCCEEDED
    assert json.loads(events[-1].body)["data"]["status"] == "partial"
    assert [emission.name for emission in decision.emissions].count(EventName.OUTPUT) == 4


def _asked_for(outputs: int) -> Request:
    """A request while its POST is on its way."""
    return replace(new_request("r-1", num_generations=outputs).request, state=RequestState.SUBMITTING)


async def test_headers_nested_too_deep_to_decode_stay_bytes_and_end_no_connection() -> None:
    tolerate_odd_properties()
    table = b""
    for _ in range(3000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    properties = Properties()
    properties.unmarshal(Properties.flags["headers"], len(table).to_bytes(4, "big") + table)
    assert isinstance(properties.headers, bytes)
