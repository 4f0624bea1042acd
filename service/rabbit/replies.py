"""Replies: best effort, on a connection of their own, since what callers name may break it.

RabbitMQ 3.10 ends the connection (541) over an address that looks like direct reply-to and is none, and with it ends
whatever else is on its way. So each reply that was broken off is tried once more, and those tries go one at a time:
the one that is to blame breaks its own alone.
"""

from __future__ import annotations

import asyncio

import aiormq
import structlog

from service.domain.errors import BrokerUnavailableError
from service.domain.messages import OutboxEvent
from service.rabbit.outlet import Outlet
from service.rabbit.pipeline import PERSISTENT, trace_headers
from service.wire.envelope import CLOUDEVENTS_JSON

log = structlog.get_logger(__name__)
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to."


class Replies:
    """Stays connected; at most `confirm_timeout_s` for each of the two tries, the wait for the second one included."""

    def __init__(self, url: str, confirm_timeout_s: float) -> None:
        self._outlet = Outlet(url, "replies", channels=1, declares=False)
        self._confirm_timeout_s = confirm_timeout_s
        self._trying_again = asyncio.Lock()

    async def run(self) -> None:
        """Connects, again and again, until cancelled."""
        await self._outlet.run()

    async def close(self) -> None:
        """Closes the connection."""
        await self._outlet.close()

    async def publish(self, event: OutboxEvent) -> bool:
        """To the event's `reply_to` through the default exchange; False when it did not get there.
        BrokerUnavailableError while an alarm blocks publishers: nobody is to blame, and it passes."""
        try:
            return await self._try(event) or await self._try_again(event)
        except aiormq.exceptions.DeliveryError:
            return False

    async def _try_again(self, event: OutboxEvent) -> bool:
        try:
            async with asyncio.timeout(self._confirm_timeout_s), self._trying_again:
                return await self._try(event)
        except TimeoutError as error:
            if self._outlet.blocked:
                raise BrokerUnavailableError("An alarm of the broker kept a reply from its second try.") from error
            log.info("reply.failed", request_id=event.request_id, reason="Its second try came too late to be made.")
            return False

    async def _try(self, event: OutboxEvent) -> bool:
        """False when the connection was away, or broke."""
        reply_to = event.reply_to or ""
        direct = reply_to.startswith(DIRECT_REPLY_TO)  # the broker answers `mandatory` wrongly there
        try:
            await self._outlet.wait_connected(self._confirm_timeout_s)
            await self._outlet.publish(
                0,
                "",
                reply_to,
                event.body,
                _properties(event),
                mandatory=not direct,
                timeout_s=self._confirm_timeout_s,
            )
        except BrokerUnavailableError as error:
            if self._outlet.blocked:
                raise
            log.info("reply.failed", request_id=event.request_id, reason=str(error))
            return False
        return True


def _properties(event: OutboxEvent) -> aiormq.spec.Basic.Properties:
    return aiormq.spec.Basic.Properties(
        delivery_mode=PERSISTENT,
        content_type=CLOUDEVENTS_JSON,
        message_id=event.event_id,
        correlation_id=event.correlation_id,
        message_type=event.type,
        headers={**trace_headers(event)},
    )
