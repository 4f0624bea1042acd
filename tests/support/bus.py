"""A team on the bus: sends messages as any producer would, and keeps every event that comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

TERMINAL = ("succeeded", "failed", "cancelled", "expired", "rejected")


class Team:
    """One connection, one inbox bound to all events, one reply queue. `events` holds (routing key, body, message)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.events: list[dict[str, Any]] = []
        self.messages: list[AbstractIncomingMessage] = []
        self.replies: list[dict[str, Any]] = []
        self.reply_to = ""
        self._heard = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url)
        self._channel = await self._connection.channel()
        events = await self._channel.declare_exchange(
            "generation.events",
            aio_pika.ExchangeType.TOPIC,
            durable=True,
            arguments={"alternate-exchange": "generation.unrouted"},
        )
        inbox = await self._channel.declare_queue(exclusive=True)
        await inbox.bind(events, "#")
        await inbox.consume(self._on_event, no_ack=True)
        replies = await self._channel.declare_queue(exclusive=True)
        self.reply_to = replies.name
        await replies.consume(self._on_reply, no_ack=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def _on_event(self, message: AbstractIncomingMessage) -> None:
        async with self._heard:
            self.events.append(json.loads(message.body))
            self.messages.append(message)
            self._heard.notify_all()

    async def _on_reply(self, message: AbstractIncomingMessage) -> None:
        async with self._heard:
            self.replies.append(json.loads(message.body))
            self._heard.notify_all()

    async def send(self, body: Mapping[str, Any] | bytes, **properties: Any) -> None:
        """One confirmed request; `properties` are AMQP's (`message_id`, `reply_to`, `content_type`, ...)."""
        await self._command("generation.request", body, properties)

    async def cancel(self, body: Mapping[str, Any] | bytes, **properties: Any) -> None:
        """One confirmed cancel."""
        await self._command("generation.cancel", body, properties)

    async def _command(self, key: str, body: Mapping[str, Any] | bytes, properties: dict[str, Any]) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties.setdefault("delivery_mode", aio_pika.DeliveryMode.PERSISTENT)
        message = aio_pika.Message(raw, **properties)
        exchange = await self._channel.get_exchange("generation.commands")
        await exchange.publish(message, key, mandatory=True)

    async def send_many(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Many, pipelined."""
        exchange = await self._channel.get_exchange("generation.commands")
        messages = [aio_pika.Message(json.dumps(body).encode(), delivery_mode=2) for body in bodies]
        await asyncio.gather(*(exchange.publish(message, "generation.request") for message in messages))

    async def wait_for(self, enough: Callable[[Self], bool], timeout_s: float = 20.0) -> None:
        """Waits until what was heard is enough; TimeoutError tells what was heard."""
        async with self._heard:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._heard.wait_for(lambda: enough(self))
            except TimeoutError:
                heard = [(event.get("subject"), event["type"]) for event in self.events[-20:]]
                raise TimeoutError(f"Heard {len(self.events)} events, {len(self.replies)} replies: {heard}") from None

    async def end_of(self, request_id: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """The terminal event of a request."""
        await self.wait_for(lambda team: bool(team.ends(request_id)), timeout_s)
        return self.ends(request_id)[0]

    def of(self, request_id: str) -> list[dict[str, Any]]:
        """All events about a request, as they came."""
        return [event for event in self.events if event.get("subject") == request_id]

    def ends(self, request_id: str) -> list[dict[str, Any]]:
        """Its terminal events, as they came."""
        return [event for event in self.of(request_id) if name_of(event) in TERMINAL]

    async def ready_messages(self, queue: str) -> int:
        """How many messages wait in a queue."""
        channel = await self._connection.channel()
        try:
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0
        finally:
            await channel.close()

    async def take(self, queue: str, timeout_s: float = 10.0) -> AbstractIncomingMessage:
        """The next message of a queue, acknowledged."""
        declared = await self._channel.get_queue(queue, ensure=False)
        async with asyncio.timeout(timeout_s):
            while True:
                message = await declared.get(fail=False)
                if message is not None:
                    await message.ack()
                    return message
                await asyncio.sleep(0.02)  # basic.get has no way to wait


class LastingTeam(Team):
    """A team whose inbox and connection outlive the broker: what was confirmed is heard after its return."""

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect_robust(self._url, reconnect_interval=0.3)
        self._channel = await self._connection.channel()
        events = await self._channel.declare_exchange(
            "generation.events",
            aio_pika.ExchangeType.TOPIC,
            durable=True,
            arguments={"alternate-exchange": "generation.unrouted"},
        )
        inbox = await self._channel.declare_queue("team.inbox", durable=True)
        await inbox.bind(events, "#")
        await inbox.consume(self._on_kept)
        return self

    async def _on_kept(self, message: AbstractIncomingMessage) -> None:
        await self._on_event(message)
        with suppress(aio_pika.exceptions.AMQPError):  # then it comes again, and is heard twice
            await message.ack()


def name_of(event: Mapping[str, Any]) -> str:
    """`succeeded` of `drover.generation.succeeded.v1`."""
    return str(event["type"]).removeprefix("drover.generation.").removesuffix(".v1")
