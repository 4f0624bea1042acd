"""The bus with a span for each event that is published, whose context the message carries."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from service.domain.errors import DroverError
from service.domain.messages import Message, OutboxEvent
from service.tracing import Span, Tracing
from service.workers.ports import Bus


class TracedBus:
    """Stands before the bus where tracing is on. The body stays as it is stored: a repeat is the same to the byte."""

    def __init__(self, bus: Bus, tracing: Tracing) -> None:
        self._bus = bus
        self._tracing = tracing

    async def publish_events(self, events: Sequence[OutboxEvent]) -> Sequence[DroverError | None]:
        """As the bus does; each span lasts until the confirm, or what came instead."""
        spans = [self._tracing.publishing(event) for event in events]
        outcomes = await self._bus.publish_events(
            [_carrying(event, span) for event, span in zip(events, spans, strict=True)]
        )
        for span, error in zip(spans, outcomes, strict=True):
            if span is not None:
                span.end(None if error is None else type(error).__name__, batch=len(events))
        return outcomes

    async def publish_reply(self, event: OutboxEvent) -> bool:
        """As the bus does."""
        span = self._tracing.publishing(event, reply=True)
        try:
            arrived = await self._bus.publish_reply(_carrying(event, span))
        except Exception as error:
            if span is not None:
                span.end(type(error).__name__)
            raise
        if span is not None:
            span.end(None if arrived else "undeliverable")
        return arrived

    async def quarantine(self, message: Message, reason: str, detail: str = "") -> None:
        """As the bus does: the message goes as it came."""
        await self._bus.quarantine(message, reason, detail)


def _carrying(event: OutboxEvent, span: Span | None) -> OutboxEvent:
    return event if span is None else replace(event, traceparent=span.traceparent, tracestate=span.tracestate)
