"""The consumer: every message until it is acknowledged, whatever happens to the connection meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aio_pika
import aiormq
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractIncomingMessage
from aiormq.abc import ChannelFrame

from service.rabbit.connection import Link
from service.rabbit.consumer import DRAIN_S, Consumer, RabbitDelivery
from service.rabbit.topology import COMMANDS, REQUEST_KEY, REQUESTS, declare
from tests.support.broker import wait_ready
from tests.support.proxy import Cable

pytestmark = pytest.mark.asyncio


class Desk:
    """A consumer that runs, and what it was given."""

    def __init__(self, url: str, prefetch: int = 1000) -> None:
        self.consumer = Consumer(url, REQUESTS, prefetch=prefetch)
        self.consumer.deliver_to(self._receive)
        self.deliveries: list[RabbitDelivery] = []
        self._changed = asyncio.Condition()
        self._noted: set[asyncio.Task[None]] = set()
        self.running = asyncio.create_task(self.consumer.run())

    def _receive(self, delivery: RabbitDelivery) -> None:
        self.deliveries.append(delivery)
        task = asyncio.create_task(self._note())
        self._noted.add(task)
        task.add_done_callback(self._noted.discard)

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def has(self, count: int) -> list[RabbitDelivery]:
        """Waits for that many deliveries."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def stop(self) -> None:
        """Ends it as the application does."""
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        await self.consumer.close()


@pytest_asyncio.fixture
async def link(amqp_url: str) -> AsyncIterator[Link]:
    """A connection of a producer, with the topology declared."""
    opened = await Link.open(amqp_url, "producer")
    await declare(await opened.channel(confirms=False))
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def cable(amqp_url: str) -> AsyncIterator[Cable]:
    """The consumer's cable to the broker."""
    async with Cable(amqp_url) as plugged:
        yield plugged


@pytest_asyncio.fixture
async def desk(link: Link, cable: Cable) -> AsyncIterator[Desk]:
    """A consumer on the requests."""
    opened = Desk(cable.url)
    await wait_ready(lambda: opened.consumer.consuming)
    yield opened
    await opened.stop()


async def send(link: Link, *bodies: str, **properties: Any) -> None:
    """Confirmed requests."""
    channel = await link.channel(confirms=True)
    for body in bodies:
        await channel.basic_publish(
            body.encode(),
            exchange=COMMANDS,
            routing_key=REQUEST_KEY,
            properties=aiormq.spec.Basic.Properties(delivery_mode=2, **properties),
        )


def bodies(deliveries: list[RabbitDelivery]) -> list[str]:
    """What came."""
    return [delivery.message.body.decode() for delivery in deliveries]


async def paused(desk: Desk) -> None:
    """Waits until the broker has confirmed that it delivers no more."""
    session = desk.consumer._session
    assert session is not None
    await wait_ready(lambda: not session.channel.consumers)


async def left_after(desk: Desk, amqp_url: str) -> list[str]:
    """What comes again once the consumer is gone: what it has not acknowledged."""
    return sorted(message.body.decode() for message in await messages_after(desk, amqp_url))


async def messages_after(desk: Desk, amqp_url: str) -> list[AbstractIncomingMessage]:
    """The same, as the next consumer gets it."""
    await desk.consumer.settle()
    await desk.stop()
    connection = await aio_pika.connect(amqp_url)
    queue = await (await connection.channel()).get_queue(REQUESTS, ensure=False)
    found = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(message)
    await connection.close()
    return found


async def test_what_is_acknowledged_together_and_out_of_order_is_gone_and_nothing_else(
    desk: Desk, link: Link, amqp_url: str
) -> None:
    await send(link, *"abcdefgh")
    got = await desk.has(8)
    desk.consumer.acknowledge([got[5], got[1]])  # older ones still wait
    desk.consumer.acknowledge([got[0]])
    desk.consumer.acknowledge([got[3], got[2]])
    assert await left_after(desk, amqp_url) == ["e", "g", "h"]


async def test_a_whole_batch_is_acknowledged_in_one_frame(desk: Desk, link: Link, amqp_url: str) -> None:
    await send(link, *"abcdefgh")
    got = await desk.has(8)
    desk.consumer.acknowledge(got[:6])
    assert len(desk.consumer._acknowledgements) == 1
    assert await left_after(desk, amqp_url) == ["g", "h"]


async def test_what_was_not_acknowledged_comes_again_after_a_lost_connection(
    desk: Desk, link: Link, amqp_url: str, cable: Cable
) -> None:
    await send(link, "a", "b", "c")
    first = list(await desk.has(3))
    desk.consumer.acknowledge([first[0]])
    await desk.consumer.settle()
    cable.cut()
    assert sorted(bodies((await desk.has(5))[3:])) == ["b", "c"]


async def test_an_acknowledgement_of_a_lost_connection_is_left_and_harms_nobody(
    desk: Desk, link: Link, amqp_url: str, cable: Cable
) -> None:
    await send(link, "a", "b")
    before = list(await desk.has(2))
    cable.cut()
    again = (await desk.has(4))[2:]
    desk.consumer.acknowledge(before)  # the same numbers, in another session: they must not hit the new deliveries
    await wait_ready(lambda: desk.consumer.consuming)
    desk.consumer.acknowledge([again[0]])
    await send(link, "c")
    await desk.has(5)
    assert await left_after(desk, amqp_url) == sorted([again[1].message.body.decode(), "c"])


async def test_an_acknowledgement_that_comes_twice_harms_nobody(desk: Desk, link: Link, amqp_url: str) -> None:
    """The broker would close the channel, and everything that is held would come again."""
    await send(link, "a", "b")
    got = list(await desk.has(2))
    desk.consumer.acknowledge([got[0], got[0]])
    desk.consumer.acknowledge([got[0]])
    await desk.consumer.settle()
    await send(link, "c")
    assert bodies(await desk.has(3)) == ["a", "b", "c"]
    assert await left_after(desk, amqp_url) == ["b", "c"]


async def test_a_queue_that_somebody_deleted_is_declared_and_consumed_again(desk: Desk, link: Link) -> None:
    await send(link, "a")
    desk.consumer.acknowledge(await desk.has(1))
    await desk.consumer.settle()
    channel = await link.channel(confirms=False)
    await channel.queue_delete(REQUESTS)
    await wait_ready(lambda: not desk.consumer.consuming)
    await wait_ready(lambda: desk.consumer.consuming)
    await send(link, "b")
    assert bodies(await desk.has(2)) == ["a", "b"]


async def test_no_more_is_delivered_than_the_prefetch_until_something_is_acknowledged(
    link: Link, amqp_url: str
) -> None:
    await send(link, *"abc")
    desk = Desk(amqp_url, prefetch=2)
    got = await desk.has(2)
    assert bodies(got) == ["a", "b"]
    desk.consumer.acknowledge(got[:1])
    assert bodies(await desk.has(3)) == ["a", "b", "c"]
    await desk.stop()


async def test_a_paused_consumer_takes_no_more_and_still_acknowledges_what_it_has_and_goes_on_when_resumed(
    desk: Desk, link: Link
) -> None:
    await send(link, "a")
    got = list(await desk.has(1))
    desk.consumer.pause("a reason")
    await paused(desk)
    assert desk.consumer.fault == "not consuming generation.requests: paused, a reason"
    await send(link, "b")
    desk.consumer.acknowledge(got)
    await desk.consumer.settle()
    assert bodies(desk.deliveries) == ["a"]
    desk.consumer.resume()
    assert bodies(await desk.has(2)) == ["a", "b"]
    await wait_ready(lambda: desk.consumer.fault is None)


async def test_while_it_is_paused_a_lost_connection_costs_what_waits_no_delivery(
    desk: Desk, link: Link, cable: Cable, amqp_url: str
) -> None:
    await send(link, "a")
    await desk.has(1)
    desk.consumer.pause("a reason")
    await paused(desk)
    for _ in range(3):
        cable.cut()
        await wait_ready(lambda: desk.consumer._session is None)
        await wait_ready(lambda: desk.consumer._session is not None)
    await desk.stop()
    assert len(desk.deliveries) == 1
    connection = await aio_pika.connect(amqp_url)
    queue = await (await connection.channel()).get_queue(REQUESTS, ensure=False)
    message = await queue.get(no_ack=True, timeout=5)
    assert message.headers["x-delivery-count"] == 1
    await connection.close()


async def test_a_consumer_that_is_drained_while_it_is_paused_stays_so(desk: Desk, link: Link) -> None:
    desk.consumer.pause("a reason")
    await desk.consumer.drain()
    desk.consumer.resume()
    await send(link, "a")
    await asyncio.sleep(0.2)  # nothing comes, which nothing tells
    assert desk.deliveries == []
    assert not desk.consumer.consuming


async def test_a_drained_consumer_asks_for_no_more_and_still_acknowledges_what_it_has(
    desk: Desk, link: Link, amqp_url: str
) -> None:
    await send(link, "a")
    got = list(await desk.has(1))
    await desk.consumer.drain()
    assert not desk.consumer.consuming
    await send(link, "b")
    desk.consumer.acknowledge(got)
    assert await left_after(desk, amqp_url) == ["b"]
    assert bodies(desk.deliveries) == ["a"]


async def test_what_the_broker_sent_before_it_heard_of_the_drain_is_taken(link: Link, amqp_url: str) -> None:
    await send(link, *map(str, range(1000)))
    desk = Desk(amqp_url, prefetch=500)
    await desk.has(1)
    await desk.consumer.drain()
    desk.consumer.acknowledge(desk.deliveries)
    left = await messages_after(desk, amqp_url)
    assert len(desk.deliveries) + len(left) == 1000
    assert [message for message in left if message.redelivered] == []


@pytest.mark.parametrize("beginning", [False, True], ids=["consuming", "beginning to consume"])
async def test_a_broker_that_does_not_answer_takes_little_of_a_drains_time(
    desk: Desk, cable: Cable, *, beginning: bool
) -> None:
    if beginning:
        desk.consumer.pause("a reason")
        await wait_ready(lambda: not desk.consumer.consuming)
        await asyncio.sleep(0.2)  # the broker's answer, which nothing tells
    cable.hold_answers()
    desk.consumer.resume()
    await asyncio.sleep(0.1 if beginning else 0)  # it asks
    try:
        async with asyncio.timeout(DRAIN_S + 1):  # the rest of the grace is theirs who have paid for something
            await desk.consumer.drain()
    finally:
        cable.pass_answers()
    assert not desk.consumer.consuming


async def test_properties_come_as_they_were_sent(desk: Desk, link: Link) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await send(
        link,
        json.dumps({"a": 1}),
        message_id="m",
        correlation_id="c",
        reply_to="inbox",
        app_id="team",
        content_type="application/json",
        headers={"traceparent": trace, "tracestate": "k=v", "other": 1},
    )
    (delivery,) = await desk.has(1)
    message = delivery.message
    assert (message.message_id, message.correlation_id, message.reply_to) == ("m", "c", "inbox")
    assert (message.source, message.content_type, message.unreadable) == ("team", "application/json", ())
    assert (message.traceparent, message.tracestate) == (trace, "k=v")


async def test_the_user_that_the_broker_checked_goes_before_the_name_that_the_application_gives_itself(
    desk: Desk, link: Link
) -> None:
    await send(link, "a", user_id="guest", app_id="team")
    await send(link, "b")
    assert [delivery.message.source for delivery in await desk.has(2)] == ["guest", "anonymous"]


async def test_properties_that_hold_a_nul_or_no_text_are_named_and_not_passed_on(desk: Desk, link: Link) -> None:
    await send(link, "a", message_id="m\x00", correlation_id="c\x00", app_id="a\x00", reply_to="inbox")
    (delivery,) = await desk.has(1)
    message = delivery.message
    assert set(message.unreadable) == {"message_id", "correlation_id", "app_id"}
    assert (message.message_id, message.correlation_id, message.reply_to) == (None, None, "inbox")
    assert message.source == "anonymous"


@pytest.mark.parametrize(
    ("properties", "sent", "arrives"),
    [
        ({"message_id": "MARK"}, b"\xff\xfe\xfd\xfc", ("message_id",)),
        ({"type": "MARK"}, b"\xff\xfe\xfd\xfc", ()),
        ({"headers": {"MARK": 1}}, b"\xff\xfe\xfd\xfc", ()),
        ({"headers": {"traceparent": "MARK"}}, b"\xff\xfe\xfd\xfc", ()),
        ({"timestamp": datetime.fromtimestamp(0x4D41524B, UTC)}, b"\xff\xff\xff\xff", ()),
    ],
)
async def test_properties_that_no_decoder_takes_cost_their_own_message_and_nobody_elses(
    desk: Desk, link: Link, properties: dict[str, Any], sent: bytes, arrives: tuple[str, ...]
) -> None:
    names = {"type": "message_type"}
    odd = {names.get(name, name): value for name, value in properties.items()}
    await _send_changed(link, sent, aiormq.spec.Basic.Properties(correlation_id="c", **odd))
    await send(link, "b")
    got = await desk.has(2)
    assert bodies(got) == ["a", "b"]
    assert got[0].message.unreadable == arrives
    assert got[0].message.correlation_id == "c"
    assert got[0].message.traceparent is None


async def _send_changed(link: Link, raw: bytes, properties: aiormq.spec.Basic.Properties) -> None:
    """What no client library would write: the frame is changed before it is sent (`MARK` becomes `raw`)."""
    channel = await link.channel(confirms=False)
    queue, put = channel.write_queue, channel.write_queue.put

    async def changed(frame: ChannelFrame) -> None:
        payload = frame.payload.replace(b"\0\0\0\0MARK", raw * 2).replace(b"MARK", raw)
        await put(replace(frame, payload=payload))

    queue.put = changed  # type: ignore[method-assign, assignment]
    try:
        await channel.basic_publish(b"a", exchange=COMMANDS, routing_key=REQUEST_KEY, properties=properties)
    finally:
        queue.put = put  # type: ignore[method-assign]
