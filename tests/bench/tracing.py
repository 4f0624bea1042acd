"""What the spans of one request cost, in microseconds of CPU: in the event loop, and in the thread that sends them.

    python -m tests.bench.tracing [requests]

Six spans: the processing of its message, a POST, the generation, three events. No server, no network; the best of five.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

from service.clock import utc_now
from service.domain.facts import HubAccepted
from service.domain.messages import Message, OutboxEvent
from service.domain.states import Request, RequestState
from service.otlp.context import context_of, traceparent_of
from service.otlp.sender import Sender
from service.otlp.tracer import OtlpTracing
from service.tracing import UNTRACED, Tracing
from service.wire.requests import RequestRules, read_message
from service.workers.intake import _traced

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
BODY = b'{"request_id": "r-1", "input": {"prompt": "x"}}'
EVENTS, BATCH, BEST_OF = 3, 512, 5
POSTED = HubAccepted(("8f14e45f-ceea-467f-a0e6-5b1c4f3a7c11",))


class Kept(SpanProcessor):
    """Stands where the sending thread's queue does."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keeps it."""
        self.spans.append(span)


class Way:
    """What the workers tell of one request, without the work."""

    def __init__(self, tracing: Tracing, flags: str) -> None:
        now = utc_now()
        self._tracing = tracing
        self._message = Message(BODY, message_id="m-1", traceparent=TRACEPARENT + flags, queue="generation.requests")
        self._read = read_message(self._message, RequestRules(), now)
        self._request = Request(
            request_id="r-1",
            version=3,
            state=RequestState.SUCCEEDED,
            sequence=3,
            source="team",
            model="ltx-2-3-quality-text-to-video",
            num_generations=1,
            received_at=now,
            submitted_at=now,
            finished_at=now + timedelta(seconds=60),
            attempts=1,
            traceparent=self._message.traceparent,
        )
        name = "generation.succeeded"
        self._event = OutboxEvent(str(UUID(int=7)), "r-1", 3, name, name, b"", True, traceparent=TRACEPARENT + flags)

    def off(self) -> None:
        """As many looks at `on` as the loops have."""
        tracing = self._tracing
        for _ in range(5):
            if tracing.on:
                raise RuntimeError("It is on.")

    def on(self) -> None:
        """As intake, submitter, settler and the traced bus do it."""
        tracing = self._tracing
        span = tracing.processing(self._message, self._read)
        if span is not None:
            _traced(self._read, span)
            span.end(outcome="stored", model=self._request.model, batch=1)
        tracing.posted(self._request, 0.1, POSTED)
        tracing.ended(self._request)
        for _ in range(EVENTS):
            published = tracing.publishing(self._event)
            if published is not None:
                replace(self._event, traceparent=published.traceparent, tracestate=published.tracestate)
                published.end(batch=EVENTS)


def by_the_sdk(kept: Kept) -> Callable[[], None]:
    """The same number of spans by the SDK's own tracer."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    tracer = provider.get_tracer("drover")
    attributes = {f"messaging.attribute.{n}": "a value" for n in range(6)}

    def draw() -> None:
        for _ in range(3 + EVENTS):
            parent = context_of(TRACEPARENT + "01", None)
            around = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
            span = tracer.start_span("generation.events publish", around, SpanKind.PRODUCER, attributes)
            traceparent_of(span.get_span_context())
            span.set_attribute("drover.batch_size", 3)
            span.end()

    return draw


def microseconds(draw: Callable[[], None], requests: int) -> float:
    """Of CPU for one request."""
    found = []
    for _ in range(BEST_OF):
        began = time.process_time()
        for _ in range(requests):
            draw()
        found.append((time.process_time() - began) / requests * 1e6)
    return min(found)


def main() -> None:
    """Prints the table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    kept, theirs = Kept(), Kept()
    sender = Sender("nowhere", holder="bench")
    sender._processor = kept  # type: ignore[assignment] # as much as it asks of one
    tracing = OtlpTracing(sender, hub="hub.test")

    def encode() -> None:
        encode_spans(kept.spans[:BATCH]).SerializePartialToString()

    rows = {
        "off": microseconds(Way(UNTRACED, "01").off, requests),
        "on, sampled out": microseconds(Way(tracing, "00").on, requests),
        "on, sampled": microseconds(Way(tracing, "01").on, requests),
        "the same by the SDK's tracer": microseconds(by_the_sdk(theirs), requests),
        "in the sending thread": microseconds(encode, 10) * (3 + EVENTS) / BATCH,
    }
    for name, cost in rows.items():
        print(f"{name:30} {cost:8.2f} us")  # noqa: T201 - the report


if __name__ == "__main__":
    main()
