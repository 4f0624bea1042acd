"""Whole spans on their way to the collector: the SDK's batch processor, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.trace.status import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from service.domain.errors import ConfigurationError
from service.otlp import complaints

log = structlog.get_logger(__name__)
CLOSE_S = 1.5  # for the last spans; less than what the composition root's closing has
NAME = "drover"
WELL, WRONG = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
Attributes = dict[str, AttributeValue]


class Sender:
    """Sends to one collector. Between `open` and `close`; what does not fit its queue meanwhile is dropped.

    Spans are made whole, when they end. `ReadableSpan` is meant for the SDK's own tracer, but that one's spans, which
    can be written to (locks, limits, bounded attributes), take five times as long in the event loop, and a request
    has six (tests/bench/tracing.py).
    """

    def __init__(self, address: str, *, holder: str) -> None:
        complaints.listen()
        self._address = address
        provider = TracerProvider(resource=_resource(holder), shutdown_on_exit=False)  # reads the variables
        self.resource, self.sampler, self.ids = provider.resource, provider.sampler, provider.id_generator
        self._scope = InstrumentationScope(NAME, version(NAME))
        self._processor: BatchSpanProcessor | None = None
        self._exporter: OTLPSpanExporter | None = None

    def open(self) -> None:
        """Starts the sending thread; connects nowhere yet. ConfigurationError."""
        try:
            self._exporter = OTLPSpanExporter()
            self._processor = BatchSpanProcessor(self._exporter)
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(f"The OTEL_ variables cannot be used as they are: {error}") from None
        log.info("traces.sent", collector=self._address, sampler=self.sampler.get_description())

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
            complaints.hush()
            exporter.shutdown()  # type: ignore[no-untyped-call] # no further try

    def send(
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
            self.resource,
            attributes,
            kind=kind,
            status=WELL if error is None else WRONG,
            start_time=began_ns,
            end_time=max(began_ns, ended_ns),  # two replicas' clocks may have told them
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)


def _resource(holder: str) -> Resource:
    """Who sends: what the variables say, else the service's own name, version and replica."""
    own = {SERVICE_NAME: NAME, SERVICE_VERSION: version(NAME), SERVICE_INSTANCE_ID: holder}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})
