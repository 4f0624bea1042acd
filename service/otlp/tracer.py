"""What the workers tell, drawn as spans by OpenTelemetry's conventions for messaging.

The sampler is asked once a request, where its message comes in; everything later follows the flag of the stored
context, which is what every sampler of the SDK would say.

Attributes: ids, names of models and sources, counts, codes. Never a prompt, metadata, a URL, or a text of the hub's.
"""

from __future__ import annotations

import time
from datetime import datetime

from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from service.domain.facts import (
    Fact,
    FoundUpstream,
    HubAccepted,
    HubRefused,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    SubmitOutcome,
)
from service.domain.matching import Doubt
from service.domain.messages import Identified, Message, OutboxEvent, Unidentified
from service.domain.states import Request, RequestState
from service.otlp.context import context_of, sampled, traceparent_of
from service.otlp.sender import Attributes, Sender
from service.tracing import Span, Tracing

PROCESS, SUBMIT, RESOLVE, GENERATE = "generation.requests process", "submit", "resolve doubt", "generate"
PUBLISH, REPLY = "generation.events publish", "reply publish"


class OtlpTracing(Tracing):
    """Tracing that is on."""

    on = True

    def __init__(self, sender: Sender, *, hub: str) -> None:
        self._sender = sender
        self._hub = hub

    def open(self) -> None:
        """Begins to send. ConfigurationError."""
        self._sender.open()

    async def close(self) -> None:
        """Sends what is left."""
        await self._sender.close()

    # -- what the workers tell ------------------------------------------------------------------------------------

    def processing(self, message: Message, read: Identified | Unidentified) -> Span | None:
        """From the delivery to the commit, beneath the producer's span. What the sampler drops is passed on."""
        parent = context_of(read.traceparent, read.tracestate)
        context = self._decided(parent)
        if not context.trace_flags.sampled:
            return None if parent is not None and not parent.trace_flags.sampled else Undrawn(context, read)
        attributes: Attributes = {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": message.queue,
            "drover.source": message.source,
        }
        if message.message_id is not None:
            attributes["messaging.message.id"] = message.message_id
        if isinstance(read, Identified):
            attributes["drover.request_id"] = read.request_id
        return Drawn(
            self._sender, PROCESS, SpanKind.CONSUMER, context, parent, attributes, read.tracestate if parent else None
        )

    def posted(self, request: Request, seconds: float, outcome: SubmitOutcome) -> None:
        """The POST, by what it came to."""
        if not sampled(request.traceparent):
            return
        attributes = _of(request)
        attributes["http.request.method"] = "POST"
        attributes["server.address"] = self._hub
        error = None
        match outcome:
            case HubAccepted(generation_ids=ids):
                attributes["drover.outcome"] = "taken"
                attributes["drover.generation_ids"] = ids
            case HubRefused(fault=fault):
                attributes["drover.outcome"], error = "refused", fault.code.value
            case NotSent():
                attributes["drover.outcome"] = error = "not_sent"
            case OutcomeUnknown():
                attributes["drover.outcome"] = error = "unknown"
        now = time.time_ns()
        self._draw_beneath(request, SUBMIT, SpanKind.CLIENT, attributes, now - int(seconds * 1e9), now, error)

    def doubt_resolved(self, doubt: Doubt, fact: Fact) -> None:
        """From the beginning of the doubt to the look that ended it."""
        request = doubt.request
        if not sampled(request.traceparent):
            return
        attributes = _of(request)
        error = None
        match fact:
            case FoundUpstream(generation_ids=ids):
                attributes["drover.outcome"] = "found"
                attributes["drover.generation_ids"] = ids
            case NotFoundUpstream():
                attributes["drover.outcome"] = "not_found"
            case _:
                attributes["drover.outcome"] = error = "undecidable"
        began, now = _ns(doubt.doubted_at), time.time_ns()
        self._draw_beneath(request, RESOLVE, SpanKind.INTERNAL, attributes, began, now, error)

    def ended(self, request: Request) -> None:
        """The generation, from the hub's ids to the end. What was never submitted has none: its POSTs and its terminal
        event are in the trace all the same."""
        if request.submitted_at is None or request.finished_at is None or not sampled(request.traceparent):
            return
        attributes = _of(request)
        attributes["drover.state"] = request.state.value
        attributes["drover.generation_ids"] = [o.generation_id for o in request.outputs if o.generation_id is not None]
        error = None
        if request.error is not None and request.state is not RequestState.CANCELLED:  # which somebody wanted
            error = request.error.code.value
        began, ended = _ns(request.submitted_at), _ns(request.finished_at)
        self._draw_beneath(request, GENERATE, SpanKind.INTERNAL, attributes, began, ended, error)

    def publishing(self, event: OutboxEvent, *, reply: bool = False) -> Span | None:
        """Until the broker's confirm."""
        if not sampled(event.traceparent) or (parent := context_of(event.traceparent, event.tracestate)) is None:
            return None
        attributes: Attributes = {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.message.id": event.event_id,
            "messaging.rabbitmq.destination.routing_key": event.type,
            "drover.request_id": event.request_id,
        }
        if reply:
            attributes["messaging.destination.anonymous"] = True
        else:
            attributes["messaging.destination.name"] = "generation.events"
        name = REPLY if reply else PUBLISH
        return Drawn(self._sender, name, SpanKind.PRODUCER, self._beneath(parent), parent, attributes, event.tracestate)

    # -- spans ----------------------------------------------------------------------------------------------------

    def _decided(self, parent: SpanContext | None) -> SpanContext:
        """A context beneath the parent, or of a new trace, sampled or not."""
        around = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        trace_id = self._sender.ids.generate_trace_id() if parent is None else parent.trace_id
        answer = self._sender.sampler.should_sample(around, trace_id, PROCESS, SpanKind.CONSUMER)
        flags = TraceFlags.SAMPLED if answer.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
        if parent is not None:
            flags |= parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
        state = None if parent is None else parent.trace_state
        return SpanContext(trace_id, self._sender.ids.generate_span_id(), False, TraceFlags(flags), state)  # noqa: FBT003

    def _beneath(self, parent: SpanContext) -> SpanContext:
        """A context beneath one that is sampled."""
        span_id = self._sender.ids.generate_span_id()
        return SpanContext(parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state)  # noqa: FBT003

    def _draw_beneath(
        self,
        request: Request,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        began_ns: int,
        ended_ns: int,
        error: str | None,
    ) -> None:
        parent = context_of(request.traceparent, request.tracestate)
        if parent is not None:
            self._sender.send(name, kind, self._beneath(parent), parent, attributes, began_ns, ended_ns, error)


class Undrawn:
    """A request that is not sampled: whoever comes after it must know, and so its context says it."""

    __slots__ = ("traceparent", "tracestate")

    def __init__(self, context: SpanContext, read: Identified | Unidentified) -> None:
        self.traceparent = traceparent_of(context)
        self.tracestate = read.tracestate if context.trace_state else None

    def end(
        self,
        error: str | None = None,
        *,
        outcome: str | None = None,
        model: str | None = None,
        batch: int | None = None,
    ) -> None:
        """Nothing is drawn."""


class Drawn:
    """A span under way, drawn when it ends."""

    __slots__ = ("_began_ns", "_whole", "traceparent", "tracestate")

    def __init__(
        self,
        sender: Sender,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        tracestate: str | None,
    ) -> None:
        self._whole: tuple[Sender, str, SpanKind, SpanContext, SpanContext | None, Attributes] | None = (
            sender,
            name,
            kind,
            context,
            parent,
            attributes,
        )
        self._began_ns = time.time_ns()
        self.traceparent = traceparent_of(context)
        self.tracestate = tracestate

    def end(
        self,
        error: str | None = None,
        *,
        outcome: str | None = None,
        model: str | None = None,
        batch: int | None = None,
    ) -> None:
        """Draws it; once."""
        whole, self._whole = self._whole, None
        if whole is None:
            return
        sender, name, kind, context, parent, attributes = whole
        if outcome is not None:
            attributes["drover.outcome"] = outcome
        if model is not None:
            attributes["drover.model"] = model
        if batch is not None:
            attributes["drover.batch_size"] = batch
        sender.send(name, kind, context, parent, attributes, self._began_ns, time.time_ns(), error)


def _of(request: Request) -> Attributes:
    return {
        "drover.request_id": request.request_id,
        "drover.model": request.model,
        "drover.attempt": request.attempts,
    }


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
