"""Many publishes in one go: one write, one timer and one future for all of their confirms.

By aiormq's `basic_publish` each message costs a lock, a timer, two futures and a write of its own; with three events a
request that was the largest part of the service's CPU. What is used of aiormq here besides its public part are the
tables in which a channel looks up what the broker confirms and returns. The frames are written here, too (AMQP 0-9-1,
sections 2.3.5 and 4.2): pamqp takes four times as long for the general case.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError
from pamqp import encode
from pamqp.frame import marshal

from service.domain.errors import BrokerUnavailableError
from service.domain.messages import Message, OutboxEvent
from service.rabbit.connection import translated

PERSISTENT = 2
FRAME_END = b"\xce"
HEADER_FRAME, BODY_FRAME = 2, 3
BASIC = 60  # the class of the content
CONTENT_TYPE, HEADERS, DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12  # the flags of the properties
CORRELATION_ID, MESSAGE_ID, TYPE = 1 << 10, 1 << 7, 1 << 5


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A persistent message. Its `message_id` is its own: by it the broker's return of it is known."""

    exchange: str
    routing_key: str
    body: bytes
    mandatory: bool
    message_id: str
    message_type: str
    content_type: str
    correlation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def trace_headers(of: OutboxEvent | Message) -> dict[str, str]:
    """The W3C trace context, as far as it is known."""
    given = (("traceparent", of.traceparent), ("tracestate", of.tracestate))
    return {name: value for name, value in given if value is not None}


async def publish_all(
    channel: Channel, messages: Sequence[Outgoing], timeout_s: float
) -> list[DeliveryError | BrokerUnavailableError | ValueError | None]:
    """Publishes in order on a channel with confirms; what became of each: None when it was confirmed, a DeliveryError
    when it was returned or refused, BrokerUnavailableError when nobody knows, ValueError when it cannot be sent."""
    flight = _Flight(channel, messages)
    unknown = BrokerUnavailableError("The publish was broken off.")
    try:
        with translated("publishing events"):
            async with asyncio.timeout(timeout_s):
                async with channel.lock:  # under which the channel counts its delivery tags
                    flight.take_off()
                await flight.landed
    except BrokerUnavailableError as error:
        unknown = error
    finally:
        flight.give_up()
    return [flight.ends.get(index, unknown) for index in range(len(messages))]


class _Flight:
    """Messages on their way together. `ends` has those alone of which the broker, or the message itself, has told."""

    def __init__(self, channel: Channel, messages: Sequence[Outgoing]) -> None:
        self._channel = channel
        self._messages = messages
        self._under_way: dict[int, _Confirm] = {}
        self.ends: dict[int, DeliveryError | ValueError | None] = {}
        self.landed: asyncio.Future[None] = channel.create_future()  # failed by the channel when that is lost

    def take_off(self) -> None:
        """Hands everything to the writer. Nothing waits between the tags and the queue: their orders are the same."""
        channel, payload = self._channel, bytearray()
        if self.landed.done() or channel.write_queue.full():
            raise BrokerUnavailableError("RabbitMQ takes nothing on this connection.")
        for index, message in enumerate(self._messages):
            try:
                payload += _frames(channel, message)
            except (ValueError, TypeError, OverflowError) as error:  # this one alone
                self.ends[index] = ValueError(f"The message cannot be written as AMQP: {type(error).__name__}")
                continue
            channel.delivery_tag += 1
            confirm = _Confirm(self, index, channel.delivery_tag, message.message_id)
            self._under_way[index] = confirm
            channel.confirmations[channel.delivery_tag] = confirm  # type: ignore[assignment] # as much as it asks of one
            channel.message_id_delivery_tag[message.message_id] = channel.delivery_tag
        if self._under_way:
            channel.write_queue.put_nowait(ChannelFrame(payload=bytes(payload), should_close=False))
        else:
            self.landed.set_result(None)

    def land(self, confirm: _Confirm, error: DeliveryError | None) -> None:
        """One is confirmed, or refused."""
        if self._under_way.pop(confirm.index, None) is None:
            return
        self.ends[confirm.index] = error
        self._forget(confirm)
        if not self._under_way and not self.landed.done():
            self.landed.set_result(None)

    def give_up(self) -> None:
        """What has not landed by now is nobody's any more."""
        for confirm in self._under_way.values():
            self._forget(confirm)
        self._under_way.clear()
        if not self.landed.done():
            self.landed.cancel()

    def _forget(self, confirm: _Confirm) -> None:
        known = self._channel.message_id_delivery_tag
        if known.get(confirm.message_id) == confirm.tag:
            del known[confirm.message_id]


class _Confirm:
    """Stands where aiormq keeps a future for each publish, and does what it asks of one."""

    __slots__ = ("_done", "_flight", "index", "message_id", "tag")

    def __init__(self, flight: _Flight, index: int, tag: int, message_id: str) -> None:
        self._flight = flight
        self._done = False
        self.index = index
        self.tag = tag
        self.message_id = message_id

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        self._done = True
        self._flight.land(self, None)

    def set_exception(self, error: DeliveryError) -> None:
        self._done = True
        self._flight.land(self, error)


def _frames(channel: Channel, message: Outgoing) -> bytes:
    number, body, room = channel.number, message.body, channel.max_content_size
    frames = [
        _publish_frame(number, message.exchange, message.routing_key, message.mandatory),
        _frame(HEADER_FRAME, number, header_of(message)),
    ]
    frames += [_frame(BODY_FRAME, number, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(frames)


def header_of(message: Outgoing) -> bytes:
    """The content header: class, weight, size, flags, and the properties in the order of the flags. ValueError for a
    property that is longer than 255 bytes."""
    flags = CONTENT_TYPE | DELIVERY_MODE | MESSAGE_ID | TYPE
    headers = correlation_id = b""
    if message.headers:
        flags |= HEADERS
        headers = encode.field_table(dict(message.headers))
    if message.correlation_id:
        flags |= CORRELATION_ID
        correlation_id = _short(message.correlation_id)
    return b"".join(
        (
            struct.pack(">HHQH", BASIC, 0, len(message.body), flags),
            _short(message.content_type),
            headers,
            bytes((PERSISTENT,)),
            correlation_id,
            _short(message.message_id),
            _short(message.message_type),
        )
    )


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


@lru_cache(maxsize=256)
def _publish_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001
    return marshal(spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory), channel)
