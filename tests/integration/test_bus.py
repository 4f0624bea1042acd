"""Publishing: confirmed or told why not, and one bad address harms no neighbour."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiormq
import pytest
import pytest_asyncio
from structlog.testing import CapturingLogger

from service.domain.errors import BrokerUnavailableError, ConfigurationError, UnroutableError, UnwritableError
from service.domain.messages import Message, OutboxEvent
from service.rabbit.bus import RabbitBus
from service.rabbit.connection import translated
from service.rabbit.pipeline import Outgoing, publish_all
from tests.integration.builders import as_user
from tests.support.broker import close_connections, wait_ready
from tests.support.bus import Team
from tests.support.proxy import Cable
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio
POISON = "amq.rabbitmq.reply-to.g1h2QUJD.eHl6"  # like an address of direct reply-to, and none


@asynccontextmanager
async def running(url: str, *, confirm_timeout_s: float = 10.0) -> AsyncIterator[RabbitBus]:
    """A bus that runs as in the application."""
    bus = RabbitBus(url, confirm_timeout_s=confirm_timeout_s)
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await bus.close()


@pytest_asyncio.fixture
async def bus(amqp_url: str) -> AsyncIterator[RabbitBus]:
    """Connected."""
    async with running(amqp_url) as started:
        await started.wait_connected(10)
        yield started


@pytest_asyncio.fixture
async def team(bus: RabbitBus, amqp_url: str) -> AsyncIterator[Team]:
    """Somebody who listens to all events."""
    assert bus.connected
    async with Team(amqp_url) as connected:
        yield connected


def event(name: str = "succeeded", **fields: Any) -> OutboxEvent:
    """An event about `r-1`."""
    terminal = name not in ("accepted", "submitted", "output")
    given = {
        "event_id": str(uuid4()),
        "request_id": "r-1",
        "sequence": 1,
        "body": b'{"type":"x"}',
        "terminal": terminal,
    }
    return OutboxEvent(**{**given, "routing_key": f"generation.{name}", "type": f"generation.{name}", **fields})


async def publish(bus: RabbitBus, *events: OutboxEvent) -> None:
    """All at once; raises the first error."""
    for outcome in await bus.publish_events(events):
        if outcome is not None:
            raise outcome


async def test_an_event_arrives_with_the_properties_of_the_contract(bus: RabbitBus, team: Team) -> None:
    sent = event(event_id=str(UUID(int=7)), correlation_id="c", traceparent="00-a-b-01", body=b'{"type":"drover.x.v1"}')
    await publish(bus, sent)
    await team.wait_for(lambda heard: bool(heard.events))
    (message,) = team.messages
    assert message.body == sent.body
    assert message.routing_key == "generation.succeeded"
    assert (message.message_id, message.correlation_id, message.type) == (str(UUID(int=7)), "c", "generation.succeeded")
    assert message.content_type == "application/cloudevents+json"
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.headers["traceparent"] == "00-a-b-01"


async def test_a_terminal_event_that_nobody_bound_lands_in_the_unrouted_queue(bus: RabbitBus, amqp_url: str) -> None:
    await publish(bus, event("failed", body=b"{}"))
    await publish(bus, event("accepted", body=b"{}"))  # not terminal: nobody misses it
    async with Team(amqp_url) as team:
        assert (await team.take("generation.unrouted")).routing_key == "generation.failed"
        assert await team.ready_messages("generation.unrouted") == 0


async def test_a_terminal_event_that_reaches_no_queue_at_all_is_refused_and_the_next_ones_go_on(
    bus: RabbitBus, amqp_url: str
) -> None:
    connection = await aio_pika.connect(amqp_url)
    channel = await connection.channel()
    await channel.queue_delete("generation.unrouted")
    with pytest.raises(UnroutableError, match=r"not even generation\.unrouted"):
        await publish(bus, event())
    inbox = await channel.declare_queue(exclusive=True)
    await inbox.bind("generation.events", "generation.succeeded")
    await publish(bus, event())
    assert (await inbox.get(timeout=5, no_ack=True)).routing_key == "generation.succeeded"
    await connection.close()


async def test_a_reply_reaches_its_queue(bus: RabbitBus, team: Team) -> None:
    assert await bus.publish_reply(event(reply_to=team.reply_to))
    await team.wait_for(lambda heard: bool(heard.replies))


async def test_a_reply_to_a_queue_that_is_gone_is_told_and_the_channel_survives(bus: RabbitBus, team: Team) -> None:
    answers = await asyncio.gather(
        *(bus.publish_reply(event(reply_to=queue)) for queue in ("gone", team.reply_to, "gone too", team.reply_to))
    )
    assert answers == [False, True, False, True]
    await team.wait_for(lambda heard: len(heard.replies) == 2)
    assert bus.connected


async def test_replies_to_queues_do_not_meet_an_address_that_breaks_its_connection(
    bus: RabbitBus, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr("service.rabbit.replies.log", log)
    bodies = await _answered_beside(1, bus, team.reply_to)
    await team.wait_for(lambda heard: {json.dumps(reply).encode() for reply in heard.replies} == bodies)
    assert {call.kwargs["request_id"] for call in log.calls} == {"poison"}  # no other had to be tried again


@pytest.mark.parametrize("poisons", [1, 3])
async def test_callers_without_a_queue_get_their_replies_beside_addresses_that_break_the_connection(
    bus: RabbitBus, amqp_url: str, poisons: int
) -> None:
    """The broker would end it again over the second tries of those."""
    heard: set[bytes] = set()
    replies: asyncio.Queue[bytes] = asyncio.Queue()
    async with caller(amqp_url, replies.put_nowait) as address:
        bodies = await _answered_beside(poisons, bus, address)
        async with asyncio.timeout(10):
            while heard != bodies:
                heard.add(await replies.get())


async def _answered_beside(poisons: int, bus: RabbitBus, address: str) -> set[bytes]:
    """Publishes replies to the address, again and again some at once with the poisons; all say that they arrived."""
    bodies: set[bytes] = set()
    for turn in range(5):
        replies = [event(reply_to=address, body=json.dumps({"reply": f"{turn}-{n}"}).encode()) for n in range(20)]
        bodies |= {reply.body for reply in replies}
        for place in range(poisons):
            replies.insert(place * 7, event(reply_to=POISON, request_id="poison"))
        answers = await asyncio.gather(*map(bus.publish_reply, replies))
        if any(answer for reply, answer in zip(replies, answers, strict=True) if reply.reply_to == POISON):
            pytest.skip("this broker does not mind the address")
        assert all(answer for reply, answer in zip(replies, answers, strict=True) if reply.reply_to != POISON)
    return bodies


@asynccontextmanager
async def caller(amqp_url: str, on_reply: Callable[[bytes], object]) -> AsyncIterator[str]:
    """Somebody who waits for direct replies; yields the address that the service would see."""
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()

        async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            on_reply(message.body)

        pseudo = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await pseudo.consume(hear, no_ack=True)
        ask = aio_pika.Message(b"{}", reply_to="amq.rabbitmq.reply-to")
        await channel.default_exchange.publish(ask, "generation.cancels")
        asked = await (await channel.get_queue("generation.cancels", ensure=False)).get(no_ack=True, timeout=5)
        assert asked is not None
        assert asked.reply_to is not None
        yield asked.reply_to


async def test_a_reply_goes_straight_to_a_caller_that_waits_without_a_queue(bus: RabbitBus, amqp_url: str) -> None:
    """RabbitMQ's direct reply-to; the broker answers `mandatory` wrongly there."""
    replies: asyncio.Queue[bytes] = asyncio.Queue()
    async with caller(amqp_url, replies.put_nowait) as address:
        assert await bus.publish_reply(event(reply_to=address, body=b"the end"))
        assert await asyncio.wait_for(replies.get(), 5) == b"the end"
    assert await bus.publish_reply(event(reply_to=address))  # nobody can tell that the caller is gone


async def test_a_quarantined_message_keeps_what_it_was_and_says_why(bus: RabbitBus, amqp_url: str) -> None:
    message = Message(b"\x00not json", "text/plain", "m", "c", "inbox", "team", traceparent="00-a-b-01")
    await bus.quarantine(message, "invalid_message")
    async with Team(amqp_url) as team:
        kept = await team.take("generation.dead")
    assert kept.body == b"\x00not json"
    assert kept.headers["x-drover-reason"] == "invalid_message"
    assert kept.headers["x-drover-source"] == "team"
    assert (kept.message_id, kept.correlation_id, kept.reply_to, kept.content_type) == ("m", "c", "inbox", "text/plain")


async def test_many_events_are_published_at_once_and_in_order(bus: RabbitBus, team: Team) -> None:
    events = [event() for _ in range(500)]
    assert await bus.publish_events(events) == [None] * 500
    await team.wait_for(lambda heard: len(heard.messages) == 500)
    assert [message.message_id for message in team.messages] == [str(item.event_id) for item in events]


async def test_several_who_publish_at_once_get_their_own_confirms(bus: RabbitBus, team: Team) -> None:
    await asyncio.gather(*(publish(bus, *(event() for _ in range(number))) for number in range(30)))
    await team.wait_for(lambda heard: len(heard.messages) == 435)
    assert len({message.message_id for message in team.messages}) == 435


async def test_of_events_that_go_together_each_has_its_own_end(bus: RabbitBus, amqp_url: str) -> None:
    """One is taken, one is returned, one is refused, one cannot be written; and the next go on."""
    connection = await aio_pika.connect(amqp_url)
    channel = await connection.channel()
    await channel.queue_delete("generation.unrouted")
    taken = await channel.declare_queue(exclusive=True)
    await taken.bind("generation.events", "generation.succeeded")
    full = await channel.declare_queue(exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    await full.bind("generation.events", "generation.cancelled")
    odd = event(correlation_id="x" * 256)
    together = [event(), event("failed"), event("cancelled"), odd, event("accepted"), event(body=b"")]
    for _ in range(2):
        none, returned, refused, unwritable, unheard, empty = await bus.publish_events(together)
        assert (none, unheard, empty) == (None, None, None)
        assert isinstance(returned, UnroutableError)
        assert "not even generation.unrouted" in str(returned)
        assert isinstance(refused, UnroutableError)
        assert "is full and rejects" in str(refused)
        assert isinstance(unwritable, UnwritableError)
        assert [(await taken.get(timeout=5, no_ack=True)).body for _ in range(2)] == [together[0].body, b""]
    await connection.close()


async def test_an_event_that_is_larger_than_a_frame_arrives_whole(bus: RabbitBus, team: Team) -> None:
    body = b'{"type":"' + b"x" * 500_000 + b'"}'
    await publish(bus, event(body=body))
    await team.wait_for(lambda heard: len(heard.messages) == 1)
    assert team.messages[0].body == body


async def test_a_connection_that_an_operator_closed_is_opened_again(
    bus: RabbitBus, amqp_url: str, servers: Servers
) -> None:
    losing = asyncio.create_task(wait_ready(lambda: not bus.connected))  # it may be back before the operator is told
    await close_connections(servers, amqp_url, "drover publisher")
    await losing
    await bus.wait_connected(10)
    await publish(bus, event())


async def test_what_is_published_while_the_broker_is_away_fails_at_once_and_says_so(amqp_url: str) -> None:
    async with Cable(amqp_url) as cable, running(cable.url) as bus:
        await bus.wait_connected(10)
        await cable.unplug()
        await wait_ready(lambda: not bus.connected)
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(publish(bus, event()), 1)
        with pytest.raises(BrokerUnavailableError, match=r"not reached within 0\.1 s"):
            await bus.wait_connected(0.1)
        await cable.plug()
        await bus.wait_connected(10)
        await publish(bus, event())


async def test_a_publish_whose_confirm_is_cut_off_is_not_taken_for_done(amqp_url: str) -> None:
    async with Cable(amqp_url) as cable, running(cable.url) as bus:
        await bus.wait_connected(10)
        publishing = [asyncio.create_task(bus.publish_events([event()] * 3)) for _ in range(50)]
        await asyncio.sleep(0)
        cable.cut()
        answers = [answer for answers in await asyncio.gather(*publishing) for answer in answers]
    assert any(isinstance(answer, BrokerUnavailableError) for answer in answers)
    assert all(answer is None or isinstance(answer, BrokerUnavailableError) for answer in answers)


async def test_a_confirm_that_does_not_come_is_waited_for_so_long_and_no_longer(amqp_url: str) -> None:
    async with Cable(amqp_url) as cable, running(cable.url, confirm_timeout_s=0.3) as bus:
        await bus.wait_connected(10)
        cable.hold_answers()
        answers = await bus.publish_events([event(), event()])
        assert all(isinstance(answer, BrokerUnavailableError) for answer in answers)
        cable.pass_answers()  # late confirms are nobody's
        assert await bus.publish_events([event(), event()]) == [None, None]


async def test_on_a_channel_that_is_closed_or_taken_nothing_passes_for_confirmed(bus: RabbitBus) -> None:
    channel = bus._own.channel(0)
    message = Outgoing("generation.events", "generation.succeeded", b"{}", False, "id", "type", "text/plain")
    async with channel.lock:
        answers = await publish_all(channel, [message, message], 0.05)
    assert [type(answer) for answer in answers] == [BrokerUnavailableError] * 2
    assert await publish_all(channel, [message], 5) == [None]
    await channel.close()
    answers = await publish_all(channel, [message, message], 5)
    assert [type(answer) for answer in answers] == [BrokerUnavailableError] * 2


async def test_one_wrong_exchange_does_not_end_publishing(bus: RabbitBus, amqp_url: str) -> None:
    async with Team(amqp_url) as team:
        await team._channel.exchange_delete("generation.events")
    with pytest.raises(BrokerUnavailableError):
        await publish(bus, event())
    await wait_ready(lambda: not bus.connected)
    await bus.wait_connected(10)  # declared anew with the new connection
    await publish(bus, event())


async def test_a_wrong_password_does_not_end_the_bus(amqp_url: str) -> None:
    async with running(as_user(amqp_url, "guest", "wrong")) as bus:
        with pytest.raises(BrokerUnavailableError):
            await bus.wait_connected(0.5)


# -- the errors of the driver --------------------------------------------------------------------------------------


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    """A frozen broker makes the driver raise it in tasks that were not cancelled."""
    with pytest.raises(BrokerUnavailableError, match=r"lost \(publishing\)"), translated("publishing"):
        raise asyncio.CancelledError


async def test_a_cancellation_that_somebody_asked_for_stays_one() -> None:
    async def wait() -> None:
        with translated("publishing"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ConnectionResetError("reset by peer"), BrokerUnavailableError),
        (TimeoutError(), BrokerUnavailableError),
        (aiormq.exceptions.ChannelInvalidStateError("closed"), BrokerUnavailableError),
        (aiormq.exceptions.ProbableAuthenticationError("refused"), ConfigurationError),
        (ValueError("a defect"), ValueError),
    ],
)
async def test_the_ways_in_which_a_broker_can_be_away_have_one_name(
    raised: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected), translated("publishing"):
        raise raised
