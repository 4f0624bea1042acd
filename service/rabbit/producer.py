"""A producer as any other team would write one: sends requests, hears the events. The command line uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiormq
import orjson
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, UnroutableError
from service.rabbit.connection import Link, translated
from service.rabbit.topology import CANCEL_KEY, COMMANDS, EVENTS, REQUEST_KEY

CONFIRM_TIMEOUT_S = 10.0
NO_TOPOLOGY = "Nothing takes requests or cancels on this broker; run `drover serve`, or `drover topology`, first."


class Producer:
    """One connection: an async context manager. What it hears is what happens from its opening on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._link: Link | None = None
        self._sending: Channel | None = None
        self._inbox = ""

    async def __aenter__(self) -> Self:
        self._link = link = await Link.open(self._url, "producer")
        try:
            self._sending = await link.channel(confirms=True)
        except BaseException:
            await link.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is not None:
            await self._link.close()

    async def listen(self) -> None:
        """Begins to hear all events, and replies, in a queue that goes with the connection."""
        if self._link is None:
            raise BrokerUnavailableError("RabbitMQ is not connected.")
        channel = await self._link.channel(confirms=False)
        try:
            with translated("listening for events"):
                declared = await channel.queue_declare("", exclusive=True, auto_delete=True, timeout=10)
                self._inbox = str(declared.queue)
                await channel.queue_bind(self._inbox, EVENTS, routing_key="#", timeout=10)
                await channel.basic_consume(self._inbox, self._on_event, no_ack=True, timeout=10)
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                raise UnroutableError(NO_TOPOLOGY) from error
            raise

    async def send(self, request: Mapping[str, object]) -> None:
        """Publishes a request and waits for the confirm. UnroutableError when no service declared the queue."""
        await self._send(request, REQUEST_KEY, message_id=str(request["request_id"]), reply_to=self._inbox or None)

    async def cancel(self, request_id: str) -> None:
        """Asks for the end of a request, whoever sent it, and waits for the confirm. UnroutableError as above."""
        await self._send({"request_id": request_id}, CANCEL_KEY)

    async def _send(
        self, body: Mapping[str, object], key: str, *, message_id: str | None = None, reply_to: str | None = None
    ) -> None:
        if self._sending is None:
            raise BrokerUnavailableError("RabbitMQ is not connected.")
        properties = aiormq.spec.Basic.Properties(
            delivery_mode=2,
            content_type="application/json",
            message_id=message_id,
            app_id="drover-cli",
            reply_to=reply_to,
        )
        try:
            with translated(f"sending a {key}"):
                await self._sending.basic_publish(
                    orjson.dumps(body),
                    exchange=COMMANDS,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=CONFIRM_TIMEOUT_S,
                )
        except aiormq.exceptions.DeliveryError as error:
            raise UnroutableError(NO_TOPOLOGY) from error
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                raise UnroutableError(NO_TOPOLOGY) from error
            raise

    async def events(self, request_id: str) -> AsyncIterator[dict[str, Any]]:
        """The events of one request in their order, each once, up to the terminal one. BrokerUnavailableError."""
        seen: set[str] = set()
        while True:
            event = await self._next()
            if event.get("subject") != request_id or event["id"] in seen:
                continue
            seen.add(event["id"])
            yield event
            if is_terminal(event):
                return

    async def heard(self) -> AsyncIterator[dict[str, Any]]:
        """Every event, whoever's, as it comes; one may come twice. BrokerUnavailableError."""
        while True:
            yield await self._next()

    async def _next(self) -> dict[str, Any]:
        assert self._link is not None  # noqa: S101 - `listen` has made it
        getting = asyncio.ensure_future(self._heard.get())
        losing = asyncio.ensure_future(self._link.lost.wait())
        await asyncio.wait((getting, losing), return_when=asyncio.FIRST_COMPLETED)
        losing.cancel()
        if not getting.done():
            getting.cancel()
            raise BrokerUnavailableError("The connection to RabbitMQ was lost while waiting for events.")
        return getting.result()

    async def _on_event(self, delivered: DeliveredMessage) -> None:
        self._heard.put_nowait(orjson.loads(delivered.body))


def is_terminal(event: Mapping[str, Any]) -> bool:
    """Whether the request has ended with this event."""
    return not str(event["type"]).endswith((".accepted.v1", ".submitted.v1", ".output.v1"))
