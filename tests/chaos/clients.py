"""A team's producer and consumer that outlive the broker: what was confirmed, and everything that was heard."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime
from operator import itemgetter
from typing import Self

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.rabbit.connection import Link, translated
from service.rabbit.topology import CANCEL_KEY, COMMANDS, EVENTS, REQUEST_KEY
from tests.chaos.evidence import Heard
from tests.chaos.traffic import Asked, body_at

INBOX = "chaos.inbox"
TIMEOUT_S = 15.0
RETRY_S = 0.25
PREFETCH = 200
AT_ONCE = 100  # publishes without a confirm; after an outage all that waited would time out behind one another
# What a lost broker, or one that is still starting, makes of a publish: it may have arrived, and is sent again.
UNKNOWN = (BrokerUnavailableError, aiormq.exceptions.DeliveryError)


class Client(ABC):
    """One connection, made anew whenever it is lost, until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._channel: Channel | None = None
        self._connected = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._staying = asyncio.create_task(self._stay_connected())
        await self._connected.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._staying.cancel()
        await asyncio.gather(self._staying, return_exceptions=True)

    async def _stay_connected(self) -> None:
        while True:
            try:
                link = await Link.open(self._url, self._name)
                try:
                    self._channel = await self._begin(link)
                    self._connected.set()
                    await link.lost.wait()
                finally:
                    self._channel = None
                    await link.close()
            except (BrokerUnavailableError, ConfigurationError):  # the latter: its users are not yet loaded
                pass
            await asyncio.sleep(RETRY_S)

    @abstractmethod
    async def _begin(self, link: Link) -> Channel:
        """What is to be done on a new connection."""


class Producer(Client):
    """Sends each request until the broker has confirmed it. `confirmed` holds the ids, `unknown` counts the attempts
    whose outcome nobody knows."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "chaos producer")
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.confirmed: set[str] = set()
        self.unknown = 0

    async def play(self, asked: Iterable[Asked]) -> None:
        """Sends everything at its moment; returns when all is confirmed."""
        began = time.monotonic()
        moments = [(at_s, request.request_id, self._send(request)) for request in asked for at_s in request.at_s]
        moments += [
            (request.cancel_at_s, request.request_id, self._cancel(request))
            for request in asked
            if request.cancel_at_s is not None
        ]
        async with asyncio.TaskGroup() as group:
            for at_s, _, sending in sorted(moments, key=itemgetter(0, 1)):
                await asyncio.sleep(max(0.0, at_s - (time.monotonic() - began)))
                group.create_task(sending)

    async def _begin(self, link: Link) -> Channel:
        return await link.channel(confirms=True)

    async def _send(self, request: Asked) -> None:
        await self._until_confirmed(REQUEST_KEY, request, body_at(request, datetime.now(UTC)))
        self.confirmed.add(request.request_id)

    async def _cancel(self, request: Asked) -> None:
        await self._until_confirmed(CANCEL_KEY, request, json.dumps({"request_id": request.request_id}).encode())

    async def _until_confirmed(self, routing_key: str, request: Asked, body: bytes) -> None:
        async with self._at_once:
            while not await self._published(routing_key, request, body):
                await asyncio.sleep(RETRY_S)

    async def _published(self, routing_key: str, request: Asked, body: bytes) -> bool:
        channel = self._channel
        if channel is None:
            return False
        properties = aiormq.spec.Basic.Properties(
            delivery_mode=2,
            content_type="application/json",
            message_id=request.request_id,
            app_id=request.source,
        )
        try:
            with translated("publishing a request"):
                confirm = await channel.basic_publish(
                    body,
                    exchange=COMMANDS,
                    routing_key=routing_key,
                    properties=properties,
                    mandatory=True,
                    timeout=TIMEOUT_S,
                )
        except UNKNOWN:
            self.unknown += 1
            return False
        return isinstance(confirm, aiormq.spec.Basic.Ack)


class Recorder(Client):
    """A durable queue bound to every event. `heard` holds each delivery, in order."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "chaos recorder")
        self.heard: list[Heard] = []
        self.last_at = time.monotonic()

    async def _begin(self, link: Link) -> Channel:
        channel = await link.channel(confirms=False)
        with translated("beginning to listen"):
            await channel.basic_qos(prefetch_count=PREFETCH, timeout=TIMEOUT_S)
            await channel.queue_declare(INBOX, durable=True, arguments={"x-queue-type": "quorum"}, timeout=TIMEOUT_S)
            await channel.queue_bind(INBOX, EVENTS, routing_key="#", timeout=TIMEOUT_S)

            async def on_event(delivered: DeliveredMessage) -> None:
                await self._on_event(channel, delivered)

            await channel.basic_consume(INBOX, on_event, timeout=TIMEOUT_S)
        return channel

    async def _on_event(self, channel: Channel, delivered: DeliveredMessage) -> None:
        self.heard.append(heard(bytes(delivered.body)))
        self.last_at = time.monotonic()
        if delivered.delivery_tag is not None:
            try:
                with translated("acknowledging"):
                    await channel.basic_ack(delivered.delivery_tag)
            except BrokerUnavailableError:
                pass  # it comes again, and is known by its id then


def heard(body: bytes) -> Heard:
    """An event as the checker sees it, with the moment at which it came."""
    event = json.loads(body)
    data = event["data"]
    return Heard(
        event_id=event["id"],
        request_id=event["subject"],
        name=event["type"].removeprefix("drover.generation.").removesuffix(".v1"),
        sequence=int(event["sequence"]),
        at=time.time(),
        digest=hashlib.blake2b(body, digest_size=16).digest(),
        outputs=tuple((output["generation_id"], output["status"], output["url"]) for output in data["outputs"]),
        code=(data["error"] or {}).get("code"),
    )
