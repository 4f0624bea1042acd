"""Spans over the OpenTelemetry SDK, sent by its batch processor in a thread of its own.

The sampler is asked once a request, where its message comes in; everything later follows the flag of the stored
context, which is what every sampler of the SDK would say. Spans are made whole, when they end: `ReadableSpan` is meant
for the SDK's own tracer, but that one's spans, which can be written to (locks, limits, bounded attributes), take many
times as long in the event loop, with six a request (tests/bench/tracing.py).

Attributes: ids, names of models and sources, counts, codes. Never a prompt, metadata, a URL, or a text of the hub's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from service.domain.errors import ConfigurationError
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
from service.otlp import complaints
from service.otlp.context import context_of, sampled, traceparent_of
from service.tracing import Span, Tracing

log = structlog.get_logger(__name__)
CLOSE_S = 1.5  # for the last spans; less than what the composition root's closing has
NAME = "drover"
PROCESS, SUBMIT, RESOLVE, GENERATE = "generation.requests process", "submit", "resolve doubt", "generate"
PUBLISH, REPLY = "generation.events publish", "reply publish"
WELL, WRONG = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
SAMPLED, DROPPED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
Attributes = dict[str, AttributeValue]


class OtlpTracing(Tracing):
    """Sends to one collector. Between `open` and `close`, spans that it does not take in time are dropped."""

    on = True

    def __init__(self, address: str, *, holder: str, hub: str) -> None:
        complaints.listen()
        self._address = address
        self._hub = hub
        provider = TracerProvider(resource=_resource(holder), shutdown_on_exit=False)  # reads the variables
        self._resource, self._sampler, self._ids = provider.resource, provider.sampler, provider.id_generator
        self._scope = InstrumentationScope(NAME, version(NAME))
        self._processor: BatchSpanProcessor | None = None
        self._exporter: OTLPSpanExporter | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Starts the sending thread; connects nowhere yet."""
        try:
            self._exporter = OTLPSpanExporter()
            self._processor = BatchSpanProcessor(self._exporter)
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(f"The OTEL_ variables cannot be used as they are: {error}") from None
        log.info("traces.sent", collector=self._address, sampler=self._sampler.get_description())

    async def close(self) -> None:
        """Sends what is left, in a thread that nobody has to wait for: a request to a collector that hangs ends by its
        own timeout, or with the process."""
        processor, exporter = self._processor, self._exporter
        if processor is None or exporter is None:
            return
        self._processor = None
        sent, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            processor.shutdown()  # type: ignore[no-untyped-call] # the SDK's own omission
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=flush, name="traces-flush", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await sent.wait()
        except TimeoutError:
            log.warning("traces.not_flushed", collector=self._address, waited_s=CLOSE_S)
            exporter.shutdown()  # type: ignore[no-untyped-call] # no further try

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
        return Drawn(self, PROCESS, SpanKind.CONSUMER, context, parent, attributes, read.tracestate if parent else None)

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
            "messaging.message.id": str(event.event_id),
            "messaging.rabbitmq.destination.routing_key": event.type,
            "drover.request_id": event.request_id,
        }
        if reply:
            attributes["messaging.destination.anonymous"] = True
        else:
            attributes["messaging.destination.name"] = "generation.events"
        name = REPLY if reply else PUBLISH
        return Drawn(self, name, SpanKind.PRODUCER, self._beneath(parent), parent, attributes, event.tracestate)

    # -- spans ----------------------------------------------------------------------------------------------------

    def _decided(self, parent: SpanContext | None) -> SpanContext:
        """A context beneath the parent, or of a new trace, sampled or not."""
        around = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        answer = self._sampler.should_sample(around, trace_id, PROCESS, SpanKind.CONSUMER)
        flags = SAMPLED if answer.decision is Decision.RECORD_AND_SAMPLE else DROPPED
        state = None if parent is None else parent.trace_state
        return SpanContext(trace_id, self._ids.generate_span_id(), False, flags, state)  # noqa: FBT003

    def _beneath(self, parent: SpanContext) -> SpanContext:
        """A context beneath one that is sampled."""
        span_id = self._ids.generate_span_id()
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
            self.draw(name, kind, self._beneath(parent), parent, attributes, began_ns, ended_ns, error)

    def draw(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        began_ns: int,
        ended_ns: int,
        error: str | None,
    ) -> None:
        """Hands one whole span to the thread that sends; never waits."""
        if self._processor is None:
            return
        if error is not None:
            attributes["error.type"] = error
        span = ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=kind,
            status=WELL if error is None else WRONG,
            start_time=began_ns,
            end_time=max(began_ns, ended_ns),  # two replicas' clocks may have told them
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)


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
        tracing: OtlpTracing,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        tracestate: str | None,
    ) -> None:
        self._whole: tuple[OtlpTracing, str, SpanKind, SpanContext, SpanContext | None, Attributes] | None = (
            tracing,
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
        tracing, name, kind, context, parent, attributes = whole
        if outcome is not None:
            attributes["drover.outcome"] = outcome
        if model is not None:
            attributes["drover.model"] = model
        if batch is not None:
            attributes["drover.batch_size"] = batch
        tracing.draw(name, kind, context, parent, attributes, self._began_ns, time.time_ns(), error)


def _resource(holder: str) -> Resource:
    """Who sends: what the variables say, else the service's own name, version and replica."""
    own = Resource({SERVICE_NAME: NAME, "service.version": version(NAME), "service.instance.id": holder})
    given = {key: value for key, value in Resource.create().attributes.items() if not _made_up(key, value)}
    return own.merge(Resource(given))


def _made_up(key: str, value: AttributeValue) -> bool:
    return key == SERVICE_NAME and str(value).startswith("unknown_service")


def _of(request: Request) -> Attributes:
    return {
        "drover.request_id": request.request_id,
        "drover.model": request.model,
        "drover.attempt": request.attempts,
    }


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
