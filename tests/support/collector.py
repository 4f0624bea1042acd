"""An OpenTelemetry collector as far as traces go: OTLP over HTTP, protobuf, plain or gzip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PATH = "/v1/traces"


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came over the wire; ids in hexadecimal, times in nanoseconds, `parent` empty for a root."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    began_ns: int
    ended_ns: int
    failed: bool
    tracestate: str
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def traceparent(self) -> str:
        """As those beneath it carry it, whatever the flags."""
        return f"00-{self.trace}-{self.id}-"

    @property
    def request_id(self) -> str | None:
        """Whose it is."""
        found: str | None = self.attributes.get("drover.request_id")
        return found


class Collector:
    """Keeps every span. `raw` has the bodies as they were decoded, `encodings` how they came."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.raw: list[bytes] = []
        self.encodings: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post(PATH, self._export)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _export(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()  # aiohttp has undone the encoding
        message = ExportTraceServiceRequest.FromString(body)
        async with self._came:
            self.raw.append(body)
            self.encodings.append(request.headers.get("Content-Encoding", "plain"))
            self.headers.append(dict(request.headers))
            self.spans += _spans_of(message)
            self._came.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def wait_for(self, enough: Callable[[Self], bool], timeout_s: float = 20.0) -> None:
        """Waits until what came is enough; TimeoutError tells what came."""
        async with self._came:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._came.wait_for(lambda: enough(self))
            except TimeoutError:
                came = [(span.name, span.request_id) for span in self.spans[-40:]]
                raise TimeoutError(f"{len(self.spans)} spans came: {came}") from None

    def of(self, request_id: str, name: str | None = None) -> list[Received]:
        """The spans of a request, by their beginning; all, or those of one name."""
        found = [span for span in self.spans if span.request_id == request_id and name in (None, span.name)]
        return sorted(found, key=lambda span: span.began_ns)

    def one(self, request_id: str, name: str) -> Received:
        """The only span of that name."""
        found = self.of(request_id, name)
        assert len(found) == 1, [span.name for span in self.of(request_id)]
        return found[0]


def environment(collector_url: str, **more: str) -> dict[str, str]:
    """The variables of a replica that sends its traces there, without waiting for long."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector_url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


def _spans_of(message: ExportTraceServiceRequest) -> list[Received]:
    return [
        Received(
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            began_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            failed=span.status.code == Status.STATUS_CODE_ERROR,
            tracestate=span.trace_state,
            attributes=_plain(span.attributes),
            resource=_plain(of.resource.attributes),
        )
        for of in message.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in attributes}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)
