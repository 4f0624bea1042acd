"""The quarantine on a real broker: nothing gets lost in it, and a message leaves it as it came."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiormq
import pytest
import pytest_asyncio
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from hypothesis import HealthCheck, given, settings

from service.domain.errors import BrokerUnavailableError, UnroutableError
from service.domain.messages import Message
from service.rabbit.bus import RabbitBus
from service.rabbit.connection import Link
from service.rabbit.consumer import Consumer, RabbitDelivery, read_message_of
from service.rabbit.dead_letters import DeadLetter, put_away, readable
from service.rabbit.fields import encode_table, read_table
from service.rabbit.properties import Verbatim, encoded_of
from service.rabbit.quarantine import PAGE, Choice, Held, Quarantine
from service.rabbit.topology import CANCEL_KEY, CANCELS, COMMANDS, DEAD, QUEUES, REQUEST_KEY, REQUESTS, declare
from tests.support.broker import wait_ready
from tests.support.odd import encoded_properties
from tests.support.proxy import Cable

pytestmark = pytest.mark.asyncio
EVERYTHING = Choice()
LIMIT = 20  # what the work queues are declared with


@pytest_asyncio.fixture
async def link(amqp_url: str) -> AsyncIterator[Link]:
    """Somebody's connection, with the topology declared."""
    opened = await Link.open(amqp_url, "test")
    await declare(await opened.channel(confirms=False))
    yield opened
    await opened.close()


@asynccontextmanager
async def a_bus(url: str) -> AsyncIterator[RabbitBus]:
    """The service's publisher."""
    bus = RabbitBus(url)
    running = asyncio.create_task(bus.run())
    await bus.wait_connected(10)
    yield bus
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await bus.close()


async def publish(
    link: Link, key: str, body: bytes, properties: Verbatim | None = None, exchange: str = COMMANDS
) -> None:
    """One message, confirmed."""
    channel = await link.channel(confirms=True)
    await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties, mandatory=True)
    await channel.close()


async def put_in(link: Link, count: int, reason: str = "invalid_message", queue: str = REQUESTS) -> None:
    """Letters as the service writes them, numbered from 0 in their bodies."""
    channel = await link.channel(confirms=True)

    async def one(number: int) -> None:
        message = Message(str(number).encode(), source="team", queue=queue)
        properties = put_away(message, reason, secrets.token_hex(6), datetime.now(UTC), 100_000)
        await channel.basic_publish(message.body, exchange=DEAD, properties=properties, wait=False)

    await asyncio.gather(*map(one, range(count)))
    await channel.close()


async def ready(link: Link, queue: str) -> int:
    """How many messages wait."""
    channel = await link.channel(confirms=False)
    declared = await channel.queue_declare(queue, passive=True)
    await channel.close()
    return declared.message_count or 0


async def take(link: Link, queue: str) -> DeliveredMessage:
    """The next message of a queue, for good."""
    channel = await link.channel(confirms=False)
    async with asyncio.timeout(10):
        while (message := await channel.basic_get(queue, no_ack=True)).delivery_tag is None:
            await asyncio.sleep(0.02)  # basic.get has no way to wait
    await channel.close()
    return message


def came_with(message: DeliveredMessage) -> dict[str, bytes]:
    """Its properties as they are on the wire, but for the broker's own count."""
    encoded = encoded_of(message.header.properties)
    headers = [entry for entry in read_table(encoded.pop("headers", bytes(4))) if entry[0] != b"x-delivery-count"]
    return {**encoded, "headers": encode_table(headers)} if headers else encoded


async def found(url: str, choice: Choice = EVERYTHING) -> list[Held]:
    """What a list shows."""
    async with Quarantine(url) as quarantine:
        return [held async for held in quarantine.find(choice)]


async def replayed(url: str, choice: Choice = EVERYTHING) -> list[DeadLetter]:
    """What a replay gave back."""
    async with Quarantine(url) as quarantine:
        return [letter async for letter in quarantine.replay(choice)]


def numbers(letters: Sequence[Held | DeadLetter]) -> list[int]:
    """The bodies of numbered letters."""
    return [int((item.letter if isinstance(item, Held) else item).body) for item in letters]


# -- there and back ---------------------------------------------------------------------------------------------------


async def through_the_quarantine(url: str, link: Link, queue: str = REQUESTS) -> DeliveredMessage:
    """Takes the one message of a queue as the service does, puts it away, replays it; what comes out."""
    delivered = await take(link, queue)
    async with a_bus(url) as bus:
        await bus.quarantine(read_message_of(delivered, queue), "invalid_message")
    assert len(await replayed(url)) == 1
    assert await ready(link, DEAD) == 0
    return await take(link, queue)


async def test_a_request_leaves_the_quarantine_with_all_it_came_with(amqp_url: str, link: Link) -> None:
    properties = aiormq.spec.Basic.Properties(
        content_type="application/json",
        content_encoding="identity",
        headers={
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "shot": 7,
            "deep": {"a": [1]},
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="inbox",
        message_id="m",
        timestamp=datetime(2030, 1, 31, tzinfo=UTC),
        message_type="order",
        app_id="team",
    )
    sent = Verbatim(encoded_of(properties))
    await publish(link, REQUEST_KEY, b"\x00 not JSON", sent)
    back = await through_the_quarantine(amqp_url, link)
    assert back.body == b"\x00 not JSON"
    assert came_with(back) == sent.encoded
    assert (back.exchange, back.routing_key, back.redelivered) == (COMMANDS, REQUEST_KEY, False)


async def test_a_cancel_goes_back_to_the_cancels(amqp_url: str, link: Link) -> None:
    await publish(link, CANCEL_KEY, b"{}")
    back = await through_the_quarantine(amqp_url, link, CANCELS)
    assert (back.body, back.routing_key) == (b"{}", CANCEL_KEY)
    assert await ready(link, REQUESTS) == 0


async def test_a_message_without_an_id_is_given_none_that_a_second_replay_would_not_have(
    amqp_url: str, link: Link
) -> None:
    """The driver invents a message_id for what it publishes; with it, drover would take it for a request of that id."""
    await publish(link, REQUEST_KEY, b"{}", Verbatim({}))
    back = await through_the_quarantine(amqp_url, link)
    assert back.header.properties.message_id is None


async def test_a_user_that_the_broker_checked_is_still_the_source(amqp_url: str, link: Link) -> None:
    user = (urlsplit(amqp_url).username or "").encode()
    await publish(link, REQUEST_KEY, b"{}", Verbatim({"user_id": bytes((len(user),)) + user, "app_id": b"\x03app"}))
    back = await through_the_quarantine(amqp_url, link)
    assert read_message_of(back, REQUESTS).source == user.decode()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(properties=encoded_properties)
async def test_whatever_properties_a_message_has_they_go_through_the_broker_and_come_back(
    amqp_url: str, link: Link, properties: dict[str, bytes]
) -> None:
    channel = await link.channel(confirms=True)
    await channel.basic_publish(b"body", exchange=COMMANDS, routing_key=REQUEST_KEY, properties=Verbatim(properties))
    delivered = await take(link, REQUESTS)
    origin = came_with(delivered)
    largest = 100_000
    letter = put_away(read_message_of(delivered, REQUESTS), "internal", "0123456789ab", datetime.now(UTC), largest)
    await channel.basic_publish(delivered.body, exchange=DEAD, properties=letter)
    await channel.close()
    (replay,) = await replayed(amqp_url)
    readable(replay)
    assert replay.letter_id == "0123456789ab"
    back = await take(link, REQUESTS)
    expected = {**origin, "delivery_mode": b"\x02"}
    expected.pop("expiration", None)
    assert back.body == b"body"
    assert came_with(back) == expected


# -- looking takes nothing --------------------------------------------------------------------------------------------


async def test_looking_takes_nothing_and_keeps_the_order_however_often_and_wherever_somebody_looks(
    amqp_url: str, link: Link
) -> None:
    count = 40 * PAGE + 5  # more than the broker keeps in order by chance
    await put_in(link, count)
    ids = [held.letter.letter_id for held in await found(amqp_url)]
    assert len(set(ids)) == count
    assert [held.position for held in await found(amqp_url, Choice(limit=3))] == [1, 2, 3]
    (one,) = await found(amqp_url, Choice(ids=frozenset(ids[40:41])))
    assert (numbers([one]), one.position) == ([40], 41)
    assert numbers(await found(amqp_url, Choice(limit=PAGE + 1))) == list(range(PAGE + 1))
    assert await found(amqp_url, Choice(reason="internal")) == []
    assert [held.letter.letter_id for held in await found(amqp_url)] == ids
    assert await ready(link, DEAD) == count


async def test_an_id_that_is_not_there_is_not_found(amqp_url: str, link: Link) -> None:
    await put_in(link, 2)
    assert await found(amqp_url, Choice(ids=frozenset(["000000000000"]))) == []
    assert await found(amqp_url, Choice(reason="idempotency_conflict")) == []


async def test_a_reader_that_dies_leaves_everything(amqp_url: str, link: Link) -> None:
    await put_in(link, PAGE + 8)
    async with Cable(amqp_url) as cable:
        with suppress(BrokerUnavailableError):
            async with Quarantine(cable.url) as quarantine:
                async for _ in quarantine.find(EVERYTHING):
                    cable.cut()
    async with asyncio.timeout(10):
        while await ready(link, DEAD) < PAGE + 8:
            await asyncio.sleep(0.02)  # the broker notices the loss in its own time
    assert sorted(numbers(await found(amqp_url))) == list(range(PAGE + 8))


async def test_two_who_look_at_once_take_nothing_from_each_other(amqp_url: str, link: Link) -> None:
    await put_in(link, 2 * PAGE)
    async with Quarantine(amqp_url) as first:
        reading = first.find(EVERYTHING)
        await anext(reading)
        others = numbers(await found(amqp_url))
        mine = [0, *numbers([held async for held in reading])]
    assert set(others) | set(mine) == set(range(2 * PAGE))
    assert sorted(numbers(await found(amqp_url))) == list(range(2 * PAGE))


# -- what is replayed and purged --------------------------------------------------------------------------------------


async def test_only_what_was_chosen_is_replayed_or_purged(amqp_url: str, link: Link) -> None:
    await put_in(link, 4, "invalid_message")
    await put_in(link, 4, "internal")
    ids = [held.letter.letter_id for held in await found(amqp_url)]
    assert numbers(await replayed(amqp_url, Choice(ids=frozenset([ids[1], ids[6]])))) == [1, 2]
    assert numbers(await replayed(amqp_url, Choice(reason="internal"))) == [0, 1, 3]
    async with Quarantine(amqp_url) as quarantine:
        purged = [letter async for letter in quarantine.purge(Choice(ids=frozenset(ids[2:3])))]
    assert numbers(purged) == [2]
    assert numbers(await found(amqp_url)) == [0, 3]
    assert [int((await take(link, REQUESTS)).body) for _ in range(5)] == [1, 2, 0, 1, 3]
    async with Quarantine(amqp_url) as quarantine:
        assert await quarantine.purge_all() == 2
        assert await quarantine.count() == 0


async def test_what_comes_back_at_once_is_not_replayed_for_ever(amqp_url: str, link: Link) -> None:
    """Whatever is still wrong with a message is wrong again at once, while the replay still runs."""
    count = PAGE + 3
    await put_in(link, count)
    async with a_bus(amqp_url) as bus:
        consumer = Consumer(amqp_url, REQUESTS)
        again: list[asyncio.Task[None]] = []

        async def put_away_again(delivery: RabbitDelivery) -> None:
            await bus.quarantine(delivery.message, "invalid_message")
            consumer.acknowledge([delivery])

        consumer.deliver_to(lambda delivery: again.append(asyncio.create_task(put_away_again(delivery))))
        running = asyncio.create_task(consumer.run())
        await wait_ready(lambda: consumer.consuming)
        assert len(await replayed(amqp_url)) == count
        await wait_ready(lambda: len(again) == count and all(task.done() for task in again))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await consumer.close()
    assert sorted(numbers(await found(amqp_url))) == list(range(count))


class Dying(Quarantine):
    """Dies at the worst moment: the letters are confirmed where they go, and not yet gone from here."""

    async def _acknowledge(self, page: Sequence[Held]) -> None:
        raise BrokerUnavailableError(f"died with {len(page)}")


async def test_a_replay_that_dies_before_it_acknowledges_loses_nothing_and_can_be_repeated(
    amqp_url: str, link: Link
) -> None:
    await put_in(link, 3)
    async with Dying(amqp_url) as quarantine:
        with pytest.raises(BrokerUnavailableError, match="died with 3"):
            await anext(quarantine.replay(EVERYTHING))
    assert await ready(link, REQUESTS) == 3
    assert numbers(await replayed(amqp_url)) == [0, 1, 2]
    assert (await ready(link, REQUESTS), await ready(link, DEAD)) == (6, 0)


@pytest.mark.parametrize("missing", ["queue", "exchange"])
async def test_a_letter_that_has_nowhere_to_go_stays(amqp_url: str, link: Link, missing: str) -> None:
    """Without an id of its own: the driver takes such a message for delivered when the broker returns it."""
    await put_in(link, 2)
    channel = await link.channel(confirms=False)
    await (channel.queue_delete(REQUESTS) if missing == "queue" else channel.exchange_delete(COMMANDS))
    with pytest.raises(UnroutableError, match="drover topology"):
        await replayed(amqp_url)
    assert numbers(await found(amqp_url)) == [0, 1]
    await declare(channel)
    assert numbers(await replayed(amqp_url)) == [0, 1]


async def test_without_the_queue_every_command_says_what_to_do(amqp_url: str) -> None:
    with pytest.raises(UnroutableError, match="drover topology"):
        await found(amqp_url)
    with pytest.raises(UnroutableError, match="drover topology"):
        async with Quarantine(amqp_url) as quarantine:
            await quarantine.purge_all()


async def test_a_message_without_an_id_that_no_queue_took_is_not_taken_for_quarantined(
    amqp_url: str, link: Link
) -> None:
    async with a_bus(amqp_url) as bus:
        channel = await link.channel(confirms=False)
        await channel.queue_delete(DEAD)
        with pytest.raises(BrokerUnavailableError, match="drover topology"):
            await bus.quarantine(Message(b"{}", queue=REQUESTS), "invalid_message")
        await declare(channel)
        await bus.quarantine(Message(b"{}", queue=REQUESTS), "invalid_message")
    assert await ready(link, DEAD) == 1


async def test_headers_that_fill_their_frame_do_not_keep_a_message_out_of_the_quarantine(
    amqp_url: str, link: Link
) -> None:
    """The reason would make the frame larger than the broker takes: it would close the connection, again and again."""
    frame = 131_072 - 8 - 14
    large = "x" * (frame - 30)
    properties = aiormq.spec.Basic.Properties(headers={"large": large}, message_id="m")
    await publish(link, REQUEST_KEY, b"{}", Verbatim(encoded_of(properties)))
    delivered = await take(link, REQUESTS)
    async with a_bus(amqp_url) as bus:
        await bus.quarantine(read_message_of(delivered, REQUESTS), "invalid_message")
    (held,) = await found(amqp_url)
    assert (held.letter.left_out, held.letter.body, readable(held.letter)[0]["message_id"]) == (True, b"{}", "m")


# -- delivery limits --------------------------------------------------------------------------------------------------


async def crash(url: str, queue: str, expected: int) -> list[DeliveredMessage]:
    """A consumer that is given messages and dies with them; nothing when none come within a moment."""
    link = await Link.open(url, "crashing")
    given: list[DeliveredMessage] = []
    all_here = asyncio.Event()

    async def on_message(message: DeliveredMessage) -> None:
        given.append(message)
        if len(given) == expected:
            all_here.set()

    channel = await link.channel(confirms=False)
    await channel.basic_consume(queue, on_message)
    with suppress(TimeoutError):
        await asyncio.wait_for(all_here.wait(), 2)
    await link.close()
    return given


async def in_quarantine(url: str, count: int) -> list[Held]:
    """Waits until the broker has put that many messages away, which it does in its own time."""
    async with asyncio.timeout(15):
        while len(letters := await found(url)) < count:
            await asyncio.sleep(0.05)
    return letters


@pytest.mark.parametrize(("queue", "key"), [(REQUESTS, REQUEST_KEY), (CANCELS, CANCEL_KEY)])
async def test_a_message_that_ends_its_consumer_over_and_over_is_put_away_by_the_broker_and_can_be_replayed(
    amqp_url: str, link: Link, queue: str, key: str
) -> None:
    """Innocent ones that were delivered beside it go the same way, and come back the same way. The end of a connection
    counts against its messages in every version of RabbitMQ (a `nack` does not from 4.3 on)."""
    sent = {"message_id": b"\x06poison", "app_id": b"\x04team", "delivery_mode": b"\x02"}
    await publish(link, key, b"poison", Verbatim(sent))
    await publish(link, key, b"innocent", Verbatim({"delivery_mode": b"\x02"}))
    deliveries = 0
    while await crash(amqp_url, queue, 2):
        deliveries += 1
        assert deliveries <= LIMIT + 1
    assert deliveries in (LIMIT, LIMIT + 1)
    letters = [held.letter for held in await in_quarantine(amqp_url, 2)]
    assert {letter.body for letter in letters} == {b"poison", b"innocent"}
    assert {(letter.reason, letter.queue, letter.routing_key) for letter in letters} == {("delivery_limit", queue, key)}
    poison = next(letter for letter in letters if letter.body == b"poison")
    assert (poison.source, readable(poison)[0]["message_id"], poison.headers) == ("team", "poison", ())
    assert poison.died_at is not None
    assert abs((datetime.now(UTC) - poison.died_at).total_seconds()) < 60
    assert len(await replayed(amqp_url, Choice(reason="delivery_limit"))) == 2
    back = {message.body: came_with(message) for message in [await take(link, queue) for _ in "ab"]}
    assert back == {b"poison": sent, b"innocent": {"delivery_mode": b"\x02"}}


async def test_a_replayed_message_has_its_whole_delivery_limit_again(amqp_url: str, link: Link) -> None:
    await publish(link, REQUEST_KEY, b"poison")
    for _ in range(2):
        while await crash(amqp_url, REQUESTS, 1):
            pass
        (held,) = await in_quarantine(amqp_url, 1)
        assert held.letter.reason == "delivery_limit"
        await replayed(amqp_url)
    delivered = await take(link, REQUESTS)
    assert "x-death" not in (delivered.header.properties.headers or {})


async def test_looking_does_not_use_up_a_delivery_limit(amqp_url: str, link: Link) -> None:
    await put_in(link, 1)
    for _ in range(LIMIT + 5):
        assert numbers(await found(amqp_url)) == [0]
    assert next(queue for queue in QUEUES if queue.name == DEAD).arguments["x-delivery-limit"] == 1_000_000


async def test_a_routing_key_that_is_not_text_ends_no_consumer_and_can_be_listed(amqp_url: str, link: Link) -> None:
    """A `CC` header leads any routing key to the requests; the driver ends the connection over one it cannot decode."""
    consumer = Consumer(amqp_url, REQUESTS)
    deliveries: list[RabbitDelivery] = []
    consumer.deliver_to(deliveries.append)
    running = asyncio.create_task(consumer.run())
    await wait_ready(lambda: consumer.consuming)
    await _publish_with_key(link, b"\xff\xfe\xfd\xfc")
    await publish(link, REQUEST_KEY, b"beside it")
    await wait_ready(lambda: len(deliveries) == 2)
    odd = deliveries[0].message
    assert (odd.body, odd.routing_key) == (b"odd", "\\xff\\xfe\\xfd\\xfc")
    async with a_bus(amqp_url) as bus:
        await bus.quarantine(odd, "invalid_message")
    consumer.acknowledge(deliveries)
    await consumer.settle()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await consumer.close()
    assert [letter.routing_key for letter in await replayed(amqp_url)] == ["\\xff\\xfe\\xfd\\xfc"]
    assert (await take(link, REQUESTS)).routing_key == REQUEST_KEY


async def _publish_with_key(link: Link, raw: bytes) -> None:
    """What no client library would write: the frame is changed before it is sent."""
    channel: Channel = await link.channel(confirms=False)
    queue, put = channel.write_queue, channel.write_queue.put

    async def changed(frame: aiormq.abc.ChannelFrame) -> None:
        await put(type(frame)(**{**vars(frame), "payload": frame.payload.replace(b"MARK", raw)}))

    queue.put = changed  # type: ignore[method-assign, assignment]
    try:
        properties = aiormq.spec.Basic.Properties(headers={"CC": [REQUEST_KEY]})
        await channel.basic_publish(b"odd", exchange=COMMANDS, routing_key="MARK", properties=properties)
    finally:
        queue.put = put  # type: ignore[method-assign]
