"""Publishes with confirms on a connection of its own: a broker's alarm blocks publishers, and intake must go on.

Events, quarantine and commands have a channel each, because one wrong exchange name closes the channel under everybody.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import aiormq

from service.clock import utc_now
from service.domain.errors import BrokerUnavailableError, DroverError, UnroutableError, UnwritableError
from service.domain.messages import Message, OutboxEvent
from service.rabbit.dead_letters import put_away
from service.rabbit.outlet import Outlet
from service.rabbit.pipeline import PERSISTENT, Outgoing, publish_all, trace_headers
from service.rabbit.replies import Replies
from service.rabbit.topology import COMMANDS, DEAD, EVENTS
from service.rabbit.verbatim import Returns, largest_properties
from service.supervisor import run_together
from service.wire.envelope import CLOUDEVENTS_JSON

EVENTS_CHANNEL, QUARANTINE_CHANNEL, COMMANDS_CHANNEL = 0, 1, 2
Properties = aiormq.spec.Basic.Properties


class RabbitBus:
    """Stays connected; every publish names what it waited for when it fails."""

    name = "bus"

    def __init__(self, url: str, *, confirm_timeout_s: float = 10.0) -> None:
        self._confirm_timeout_s = confirm_timeout_s
        self._own = Outlet(url, "publisher", channels=3, declares=True)
        self._replies = Replies(url, confirm_timeout_s)
        self._putting_away = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether events can be published now."""
        return self._own.connected

    @property
    def blocked(self) -> bool:
        """Whether an alarm of the broker blocks publishers."""
        return self._own.blocked

    async def wait_connected(self, timeout_s: float) -> None:
        """Waits for a connection. BrokerUnavailableError."""
        await self._own.wait_connected(timeout_s)

    async def run(self) -> None:
        """Connects, again and again, until cancelled."""
        await run_together(self._own.run(), self._replies.run())

    async def drain(self) -> None:
        """Nothing is held here: whoever publishes waits for the confirm."""

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.gather(self._own.close(), self._replies.close())

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish_events(self, events: Sequence[OutboxEvent]) -> list[DroverError | None]:
        """To the events exchange, all at once; what became of each: None when it was confirmed, UnroutableError or
        UnwritableError for one that is itself at fault, BrokerUnavailableError when nobody knows."""
        outgoing = [
            Outgoing(
                EVENTS,
                event.routing_key or "",
                event.body,
                event.terminal,
                event.event_id,
                event.type,
                CLOUDEVENTS_JSON,
                event.correlation_id,
                trace_headers(event),
            )
            for event in events
        ]
        try:
            await self._own.wait_unblocked(self._confirm_timeout_s)
            outcomes = await publish_all(self._own.channel(EVENTS_CHANNEL), outgoing, self._confirm_timeout_s)
        except BrokerUnavailableError as error:
            return [error] * len(events)
        return [_told(event, outcome) for event, outcome in zip(events, outcomes, strict=True)]

    async def publish_reply(self, event: OutboxEvent) -> bool:
        """To the event's `reply_to` through the default exchange; False when it did not get there (`replies.py`).
        BrokerUnavailableError while an alarm blocks publishers: nobody is to blame, and it passes."""
        return await self._replies.publish(event)

    async def publish_command(self, routing_key: str, message: Message) -> None:
        """A message to our own queues, confirmed. BrokerUnavailableError when it was not, or reached no queue."""
        properties = Properties(
            delivery_mode=PERSISTENT,
            content_type=message.content_type,
            message_id=message.message_id,
            app_id=message.source,
            headers={**trace_headers(message)},
        )
        try:
            await self._publish(COMMANDS_CHANNEL, COMMANDS, routing_key, message.body, properties)
        except aiormq.exceptions.DeliveryError as error:
            raise BrokerUnavailableError(f"No queue took the {routing_key}: {error}") from error

    async def quarantine(self, message: Message, reason: str, detail: str = "") -> None:
        """To the dead exchange, as it came, with its reason (in `detail` in words) and origin (`dead_letters.py`)."""
        async with self._putting_away:  # one at a time: what the broker returns does not say which publish it was
            await self._own.wait_unblocked(self._confirm_timeout_s)  # nothing waits from here to the publish
            channel = self._own.channel(QUARANTINE_CHANNEL)
            largest = largest_properties(channel)
            properties = put_away(message, reason, secrets.token_hex(6), utc_now(), largest, detail)
            returns = Returns.of(channel)
            before = returns.count
            try:
                await self._publish(QUARANTINE_CHANNEL, DEAD, "", message.body, properties)
            except aiormq.exceptions.DeliveryError as error:
                raise BrokerUnavailableError(f"The queue {DEAD} did not take a message: {error}") from error
            if returns.count != before:
                raise BrokerUnavailableError(f"No queue is bound to the exchange {DEAD}; run `drover topology`.")

    async def _publish(
        self, channel: int, exchange: str, routing_key: str, body: bytes, properties: Properties
    ) -> None:
        await self._own.publish(
            channel, exchange, routing_key, body, properties, mandatory=True, timeout_s=self._confirm_timeout_s
        )


def _told(event: OutboxEvent, outcome: Exception | None) -> DroverError | None:
    """One outcome in our own words."""
    match outcome:
        case None | BrokerUnavailableError():
            return outcome
        case aiormq.exceptions.PublishError():
            told = f"No queue took the event {event.type}, not even generation.unrouted; run `drover topology`."
        case aiormq.exceptions.DeliveryError():
            told = (
                f"A queue refused the event {event.type}: one that is bound to {EVENTS} is full and rejects, "
                "or has just lost its node."
            )
        case _:
            return UnwritableError(f"The event {event.type} was not published. {outcome}")
    return UnroutableError(told)
