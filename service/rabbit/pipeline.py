"""Many publishes in one go: one write, one timer and one future for all of their confirms.

By aiormq's `basic_publish` each message costs a lock, a timer, two futures and a write of its own; with three events a
request that was the largest part of the service's CPU. What is used of aiormq here besides its public part are the
tables in which a channel looks up what the broker confirms and returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from service.domain.errors import BrokerUnavailableError
from service.rabbit.connection import translated


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message; its properties have a `message_id` of their own, by which the broker's return of it is known."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.Basic.Properties
    mandatory: bool


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
        flight.give_up(unknown)
    return flight.outcomes


class _Flight:
    """Messages on their way together."""

    def __init__(self, channel: Channel, messages: Sequence[Outgoing]) -> None:
        self._channel = channel
        self._messages = messages
        self._under_way: dict[int, _Confirm] = {}
        self.outcomes: list[DeliveryError | BrokerUnavailableError | ValueError | None] = [None] * len(messages)
        self.landed: asyncio.Future[None] = channel.create_future()  # failed by the channel when that is lost

    def take_off(self) -> None:
        """Hands everything to the writer. Nothing waits between the tags and the queue: their orders are the same."""
        channel, payload = self._channel, bytearray()
        if self.landed.done() or channel.write_queue.full():
            raise BrokerUnavailableError("RabbitMQ takes nothing on this connection.")
        for index, message in enumerate(self._messages):
            try:
                payload += _frames(channel, message)
            except (ValueError, TypeError, OverflowError) as error:  # pamqp cannot write it: this one alone
                self.outcomes[index] = ValueError(f"The message cannot be written as AMQP: {type(error).__name__}")
                continue
            channel.delivery_tag += 1
            message_id = cast("str", message.properties.message_id)
            confirm = _Confirm(self, index, channel.delivery_tag, message_id)
            self._under_way[index] = confirm
            channel.confirmations[channel.delivery_tag] = confirm  # type: ignore[assignment] # as much as it asks of one
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        if self._under_way:
            channel.write_queue.put_nowait(ChannelFrame(payload=bytes(payload), should_close=False))
        else:
            self.landed.set_result(None)

    def land(self, confirm: _Confirm, error: DeliveryError | None) -> None:
        """One is confirmed, or refused."""
        if self._under_way.pop(confirm.index, None) is None:
            return
        self.outcomes[confirm.index] = error
        self._forget(confirm)
        if not self._under_way and not self.landed.done():
            self.landed.set_result(None)

    def give_up(self, error: BrokerUnavailableError) -> None:
        """What has not landed is of unknown outcome."""
        for index, confirm in self._under_way.items():
            self.outcomes[index] = error
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
    header = ContentHeader(body_size=len(message.body), properties=message.properties)
    frames = [
        _publish_frame(channel.number, message.exchange, message.routing_key, message.mandatory),
        marshal(header, channel.number),
    ]
    room = channel.max_content_size
    pieces = (message.body[start : start + room] for start in range(0, len(message.body), room))
    frames += [marshal(ContentBody(piece), channel.number) for piece in pieces]
    return b"".join(frames)


@lru_cache(maxsize=256)
def _publish_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001
    return marshal(spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory), channel)
