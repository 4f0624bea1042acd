"""Replies: best effort, on connections of their own, since what callers name may break them.

RabbitMQ 3.10 ends the connection (541) over an address that looks like direct reply-to and is none, and whatever else
is on its way there. So direct replies have a connection apart, opened for the first of them, and those that were broken
off are tried once more one at a time: the one that is to blame breaks its own alone.
"""

from __future__ import annotations

import asyncio

import aiormq
import structlog

from service.domain.errors import BrokerUnavailableError
from service.domain.messages import OutboxEvent
from service.rabbit.outlet import Outlet
from service.rabbit.pipeline import PERSISTENT, trace_headers
from service.supervisor import run_together
from service.wire.envelope import CLOUDEVENTS_JSON

log = structlog.get_logger(__name__)
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to."


class Replies:
    """Stays connected. A reply has two tries; in each, connecting and the confirm take at most `confirm_timeout_s`."""

    def __init__(self, url: str, confirm_timeout_s: float) -> None:
        self._queues = Outlet(url, "replies", channels=1, declares=False)
        self._direct = Outlet(url, "direct replies", channels=1, declares=False)
        self._direct_wanted = asyncio.Event()
        self._confirm_timeout_s = confirm_timeout_s
        self._trying_again = asyncio.Lock()

    async def run(self) -> None:
        """Connects, again and again, until cancelled."""
        await run_together(self._queues.run(), self._run_direct())

    async def _run_direct(self) -> None:
        await self._direct_wanted.wait()
        await self._direct.run()

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.gather(self._queues.close(), self._direct.close())

    async def publish(self, event: OutboxEvent) -> bool:
        """To the event's `reply_to` through the default exchange; False when it did not get there.
        BrokerUnavailableError while an alarm blocks publishers: nobody is to blame, and it passes."""
        try:
            if not (event.reply_to or "").startswith(DIRECT_REPLY_TO):
                return await self._try(self._queues, event) or await self._try(self._queues, event)
            self._direct_wanted.set()
            return await self._try(self._direct, event) or await self._try_alone(event)
        except aiormq.exceptions.DeliveryError:
            return False

    async def _try_alone(self, event: OutboxEvent) -> bool:
        """Whoever is behind many that break the connection waits in vain: it is a call, and nobody waits for ever."""
        try:
            async with asyncio.timeout(self._confirm_timeout_s), self._trying_again:
                return await self._try(self._direct, event)
        except TimeoutError as error:
            if self._direct.blocked:
                raise BrokerUnavailableError("An alarm of the broker kept a reply from its second try.") from error
            reason = f"Its second try, one at a time, had not ended after {self._confirm_timeout_s:g} s."
            log.info("reply.failed", request_id=event.request_id, reason=reason)
            return False

    async def _try(self, outlet: Outlet, event: OutboxEvent) -> bool:
        """False when the connection was away, or broke."""
        try:
            await outlet.wait_connected(self._confirm_timeout_s)
            await outlet.publish(
                0,
                "",
                event.reply_to or "",
                event.body,
                _properties(event),
                mandatory=outlet is self._queues,  # for a direct reply the broker answers it wrongly
                timeout_s=self._confirm_timeout_s,
            )
        except BrokerUnavailableError as error:
            if outlet.blocked:
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
