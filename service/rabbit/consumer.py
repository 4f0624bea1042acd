"""Consumes one queue: deliveries go to `receive`, acknowledgements come back in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.domain.messages import ANONYMOUS_SOURCE, Message
from service.domain.retry import Backoff
from service.rabbit.connection import Link, translated
from service.rabbit.properties import encoded_of, tolerate_odd_properties
from service.rabbit.topology import provide
from service.wire.requests import TRACEPARENT, TRACESTATE, readable_trace

log = structlog.get_logger(__name__)
tolerate_odd_properties()
# Each end of the connection counts against every message delivered on it, and after 20 the broker puts them away.
PREFETCH = 500
DRAIN_S = 2.0  # of each consumer; two have less than the grace has besides the longest POST
TEXTS = ("content_type", "message_id", "correlation_id", "reply_to", "user_id", "app_id")


@dataclass(slots=True, eq=False)
class Session:
    """One channel's life: the tags that wait for their acknowledgement, in order. It dies with the connection."""

    channel: Channel
    outstanding: dict[int, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RabbitDelivery:
    """A message with the session in which it may be acknowledged."""

    message: Message
    tag: int
    session: Session


class Consumer:
    """Stays connected, declares the topology, consumes. `receive` is called for each delivery and must not wait."""

    def __init__(self, url: str, queue: str, *, prefetch: int = PREFETCH) -> None:
        self.name = f"consumer of {queue}"
        self.queue = queue
        self._url = url
        self._prefetch = prefetch
        self._receive: Callable[[RabbitDelivery], None] | None = None
        self._link: Link | None = None
        self._session: Session | None = None
        self._consumer_tag: str | None = None
        self._paused: str | None = None
        self._stopping = False  # asks for no more
        self._drained = False  # and takes no more
        self._wanted_otherwise = asyncio.Event()  # paused, resumed or drained
        self._one_at_a_time = asyncio.Lock()  # a drain waits for a beginning under way, or it would end nothing
        self._acknowledgements: set[asyncio.Task[None]] = set()

    def deliver_to(self, receive: Callable[[RabbitDelivery], None]) -> None:
        """Says who takes the deliveries; before `run`."""
        self._receive = receive

    @property
    def consuming(self) -> bool:
        """Whether messages can arrive now."""
        return self._consumer_tag is not None and self._link is not None and not self._link.lost.is_set()

    @property
    def fault(self) -> str | None:
        """Why no messages can arrive now, in words."""
        if self.consuming:
            return None
        paused = f": paused, {self._paused}" if self._paused is not None else ""
        return f"not consuming {self.queue}{paused}"

    def pause(self, reason: str) -> None:
        """Takes no more until `resume`. What was delivered may still be acknowledged; it stays with this consumer.

        Each message that is at hand when a connection ends has one delivery less before the broker puts it away.
        """
        if self._paused is None:
            log.warning("consumer.paused", queue=self.queue, reason=reason)
        self._paused = reason
        self._wanted_otherwise.set()

    def resume(self) -> None:
        """Takes messages again."""
        if self._paused is not None:
            log.info("consumer.resumed", queue=self.queue)
            self._paused = None
            self._wanted_otherwise.set()

    async def run(self) -> None:
        """Connects and consumes, again and again, until cancelled."""
        backoff, failures = Backoff(first=0.2, limit=2), 0
        while True:
            try:
                await self._consume()
                failures = 0
                log.warning("consumer.lost", queue=self.queue, reason=self._link.reason if self._link else "")
            except (BrokerUnavailableError, ConfigurationError) as error:
                failures += 1
                log.warning("consumer.not_connected", queue=self.queue, reason=str(error), failures=failures)
            if self._stopping:
                await asyncio.Event().wait()  # what was delivered comes again, to another replica
            await asyncio.sleep(backoff.jittered(max(failures, 1)))

    async def drain(self) -> None:
        """Asks for no more messages; those delivered are still to be acknowledged. What the broker sent before it heard
        of that is taken, too: it would be held here until the connection is closed, and come again."""
        self._stopping = True
        self._wanted_otherwise.set()
        try:
            if self._session is not None:
                async with asyncio.timeout(DRAIN_S):
                    await self._end_consuming(self._session)
        except (BrokerUnavailableError, TimeoutError) as error:
            log.warning("consumer.not_ended", reason=str(error) or f"RabbitMQ did not answer within {DRAIN_S:g} s")
        finally:
            self._drained = True

    def acknowledge(self, deliveries: Sequence[object]) -> None:
        """Acknowledges, with one frame where no older delivery still waits. A lost session's are left."""
        session = self._session
        if session is None:
            return
        ours = (item for item in deliveries if isinstance(item, RabbitDelivery) and item.session is session)
        # A second acknowledgement of a tag would make the broker close the channel.
        tags = sorted({delivery.tag for delivery in ours if delivery.tag in session.outstanding})
        if not tags:
            return
        for tag in tags:
            del session.outstanding[tag]
        oldest = next(iter(session.outstanding), None)
        together = [tag for tag in tags if oldest is None or tag < oldest]
        frames = [(together[-1], True)] if together else []
        frames += [(tag, False) for tag in tags[len(together) :]]
        for tag, multiple in frames:
            task = asyncio.create_task(self._acknowledge(session, tag, multiple=multiple))
            self._acknowledgements.add(task)
            task.add_done_callback(self._acknowledgements.discard)

    async def settle(self) -> None:
        """Waits until every acknowledgement has been written to the connection."""
        if self._acknowledgements:
            await asyncio.wait(self._acknowledgements)

    async def close(self) -> None:
        """Closes the connection."""
        if self._link is not None:
            await self._link.close()

    async def _acknowledge(self, session: Session, tag: int, *, multiple: bool) -> None:
        try:
            with translated("acknowledging"):
                await session.channel.basic_ack(tag, multiple=multiple)
        except BrokerUnavailableError as error:
            log.info("acknowledgement.lost", reason=str(error))  # it comes again, and is known then

    async def _consume(self) -> None:
        """One connection, from its opening to its loss."""
        self._link = link = await Link.open(self._url, "consumer")
        try:
            await provide(link)
            channel = await link.channel(confirms=False)
            self._session = session = Session(channel)
            with translated("limiting the prefetch"):
                await channel.basic_qos(prefetch_count=self._prefetch, timeout=10)
            while not link.lost.is_set():
                self._wanted_otherwise.clear()
                if self._paused is None and not self._stopping:
                    await self._begin_consuming(session)
                else:
                    await self._end_consuming(session)
                await link.lost_or(self._wanted_otherwise)
        finally:
            self._session = self._consumer_tag = None
            await link.close()

    async def _begin_consuming(self, session: Session) -> None:
        async with self._one_at_a_time:
            if self._consumer_tag is not None:
                return
            with translated("beginning to consume"):
                answer = await session.channel.basic_consume(
                    self.queue, lambda m: self._on_message(session, m), timeout=10
                )
            self._consumer_tag = answer.consumer_tag
        log.info("consumer.started", queue=self.queue, prefetch=self._prefetch)

    async def _end_consuming(self, session: Session) -> None:
        async with self._one_at_a_time:
            tag, self._consumer_tag = self._consumer_tag, None
            if tag is not None:
                with translated("ending the consumer"):
                    await session.channel.basic_cancel(tag, timeout=5)

    async def _on_message(self, session: Session, delivered: DeliveredMessage) -> None:
        tag = delivered.delivery_tag
        if tag is None or self._receive is None or self._drained:
            return  # unacknowledged: it goes back when the connection is closed
        session.outstanding[tag] = None
        self._receive(RabbitDelivery(read_message_of(delivered, self.queue), tag, session))


def read_message_of(delivered: DeliveredMessage, queue: str) -> Message:
    """A delivery as a domain value; properties that are not storable text are named instead of passed on."""
    properties = delivered.header.properties
    texts: dict[str, str | None] = {}
    unreadable = []
    for name in TEXTS:
        value = getattr(properties, name, None)
        if value is None or (isinstance(value, str) and "\x00" not in value):
            texts[name] = value or None
        else:
            texts[name] = None
            unreadable.append(name)
    headers = properties.headers if isinstance(properties.headers, dict) else {}
    return Message(
        body=bytes(delivered.body),
        content_type=texts["content_type"],
        message_id=texts["message_id"],
        correlation_id=texts["correlation_id"],
        reply_to=texts["reply_to"],
        source=texts["user_id"] or texts["app_id"] or ANONYMOUS_SOURCE,
        traceparent=readable_trace(TRACEPARENT, headers.get("traceparent")),
        tracestate=readable_trace(TRACESTATE, headers.get("tracestate")),
        unreadable=tuple(unreadable),
        queue=queue,
        exchange=delivered.exchange or "",
        routing_key=delivered.routing_key or "",
        properties=tuple(encoded_of(properties).items()),
    )
