"""Publishes with confirms on a connection of its own: a broker's alarm blocks publishers, and intake must go on.

Events, replies and quarantine have a channel each, because one wrong exchange name closes the channel under everybody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiormq
import structlog
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError, UnroutableError
from service.domain.messages import Message, OutboxEvent
from service.domain.retry import Backoff
from service.rabbit.connection import Link, translated
from service.rabbit.topology import COMMANDS, DEAD, EVENTS, REQUEST_KEY, declare
from service.wire.requests import CLOUDEVENTS_JSON

log = structlog.get_logger(__name__)
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to."
PERSISTENT = 2
Properties = aiormq.spec.Basic.Properties


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of one connection."""

    events: Channel
    replies: Channel
    quarantine: Channel


class RabbitBus:
    """Stays connected; every publish names what it waited for when it fails."""

    name = "bus"

    def __init__(self, url: str, *, confirm_timeout_s: float = 10.0) -> None:
        self._url = url
        self._confirm_timeout_s = confirm_timeout_s
        self._link: Link | None = None
        self._channels: Channels | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether something can be published now."""
        return self._channels is not None and self._link is not None and not self._link.lost.is_set()

    async def wait_connected(self, timeout_s: float) -> None:
        """Waits for a connection. BrokerUnavailableError."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError as error:
            raise BrokerUnavailableError(f"RabbitMQ was not reached within {timeout_s:g} s.") from error

    async def run(self) -> None:
        """Connects, again and again, until cancelled."""
        backoff, failures = Backoff(first=0.2, limit=10), 0
        while True:
            try:
                await self._stay_connected()
                failures = 0
                log.warning("bus.lost")
            except (BrokerUnavailableError, ConfigurationError) as error:
                failures += 1
                log.warning("bus.not_connected", reason=str(error), failures=failures)
            await asyncio.sleep(backoff.jittered(max(failures, 1)))

    async def drain(self) -> None:
        """Nothing is held here: whoever publishes waits for the confirm."""

    async def close(self) -> None:
        """Closes the connection."""
        if self._link is not None:
            await self._link.close()

    async def _stay_connected(self) -> None:
        self._link = link = await Link.open(self._url, "publisher")
        try:
            setup = await link.channel(confirms=False)
            with translated("declaring the topology"):
                await declare(setup)
            self._channels = Channels(
                events=await link.channel(confirms=True),
                replies=await link.channel(confirms=True),
                quarantine=await link.channel(confirms=True),
            )
            self._connected.set()
            log.info("bus.connected")
            await link.lost.wait()
        finally:
            self._channels = None
            self._connected.clear()
            await link.close()

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish_event(self, event: OutboxEvent) -> None:
        """To the events exchange, confirmed; a terminal event that reaches no queue is UnroutableError."""
        key = event.routing_key or ""
        try:
            await self._publish(
                self._ready().events, EVENTS, key, event.body, _properties(event), mandatory=event.terminal
            )
        except aiormq.exceptions.DeliveryError as error:
            raise UnroutableError(
                f"The broker did not take the event {event.type} ({error}); the queue generation.unrouted is missing "
                "or full: run `drover topology`."
            ) from error

    async def publish_reply(self, event: OutboxEvent) -> bool:
        """To the event's `reply_to` through the default exchange; False when there is no such queue."""
        reply_to = event.reply_to or ""
        direct = reply_to.startswith(DIRECT_REPLY_TO)  # the broker answers `mandatory` wrongly there
        try:
            await self._publish(
                self._ready().replies, "", reply_to, event.body, _properties(event), mandatory=not direct
            )
        except aiormq.exceptions.DeliveryError:
            return False
        return True

    async def quarantine(self, message: Message, reason: str) -> None:
        """To the dead exchange as it came, with the reason in a header."""
        headers: dict[str, object] = {"x-drover-reason": reason, "x-drover-source": message.source}
        trace = {"traceparent": message.traceparent, "tracestate": message.tracestate}
        headers |= {key: value for key, value in trace.items() if value is not None}
        properties = Properties(
            delivery_mode=PERSISTENT,
            content_type=message.content_type,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            headers=headers,  # type: ignore[arg-type]  # a field table of texts
        )
        try:
            await self._publish(self._ready().quarantine, DEAD, "", message.body, properties, mandatory=True)
        except aiormq.exceptions.DeliveryError as error:
            raise BrokerUnavailableError(f"The queue {DEAD} did not take a message: {error}") from error

    async def publish_request(self, body: bytes, properties: Properties) -> None:
        """A request onto the bus, as any producer would send it; UnroutableError when no queue takes it."""
        try:
            await self._publish(self._ready().replies, COMMANDS, REQUEST_KEY, body, properties, mandatory=True)
        except aiormq.exceptions.DeliveryError as error:
            raise UnroutableError(f"The broker did not take the request: {error}") from error

    def _ready(self) -> Channels:
        if self._channels is None:
            raise BrokerUnavailableError("RabbitMQ is not connected.")
        return self._channels

    async def _publish(
        self,
        channel: Channel,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool,
    ) -> None:
        with translated(f"publishing to {exchange or 'a queue'}"):
            confirmed = await channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=mandatory,
                timeout=self._confirm_timeout_s,
                wait=False,
            )
        if not isinstance(confirmed, aiormq.spec.Basic.Ack):
            raise BrokerUnavailableError(f"The broker did not confirm a message to {exchange or routing_key}.")


def _properties(event: OutboxEvent) -> Properties:
    trace = {"traceparent": event.traceparent, "tracestate": event.tracestate}
    return Properties(
        delivery_mode=PERSISTENT,
        content_type=CLOUDEVENTS_JSON,
        message_id=str(event.event_id),
        correlation_id=event.correlation_id,
        message_type=event.type,
        headers={key: value for key, value in trace.items() if value is not None},
    )
