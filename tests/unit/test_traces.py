"""Traces without a collector: when they are wanted, contexts as strings, what is drawn, what is told of faults."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.testing import capture_logs

from service.cli import run
from service.cli.doctor.check import Level
from service.cli.doctor.configuration import judge_settings
from service.domain.errors import BrokerUnavailableError, ConfigurationError, ErrorCode
from service.domain.facts import (
    FoundUpstream,
    HubAccepted,
    HubRefused,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    SubmitOutcome,
    Undecidable,
)
from service.domain.matching import Doubt
from service.domain.messages import Message, OutboxEvent
from service.domain.states import EventName, Fault, Request, RequestState
from service.otlp.complaints import Complaints, told
from service.otlp.context import context_of, sampled, traceparent_of
from service.otlp.environment import collector, tracing_of
from service.otlp.sender import Sender
from service.otlp.tracer import OtlpTracing
from service.rabbit.bus import RabbitBus
from service.tracing import UNTRACED
from service.wire.events import encode_event
from service.wire.requests import TRACEPARENT as WELL_FORMED
from service.workers.traced import TracedBus
from tests.unit.builders import NOW, RECEIVED, a_body, a_request, read

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
THERE = {ENDPOINT: "http://collector:4318"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT, SAMPLED_OUT = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
SECRET = "CANARY"

# -- whether they are wanted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: ""},
        {"OTEL_SERVICE_NAME": "clips"},
        {**THERE, "OTEL_SDK_DISABLED": "true"},
        {**THERE, "OTEL_SDK_DISABLED": "True"},
        {**THERE, "OTEL_TRACES_EXPORTER": "none"},
        {**THERE, "OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_traces_are_off_unless_an_endpoint_is_named_and_nothing_forbids_them(variables: dict[str, str]) -> None:
    assert collector(variables) is None
    assert tracing_of(variables, holder="here", hub="https://hub.test") is UNTRACED


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        (THERE, "collector:4318"),
        ({ENDPOINT: "https://collector.test/otlp"}, "collector.test"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://user:{SECRET}@other:1/v1/traces?key={SECRET}"}, "other:1"),
        ({**THERE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4318/x"}, "traces:4318"),
        ({**THERE, "OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, "collector:4318"),
        ({**THERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "collector:4318"),
        (
            {
                **THERE,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "collector:4318",
        ),
    ],
)
def test_where_traces_go_is_told_without_what_the_url_has_besides(variables: dict[str, str], address: str) -> None:
    assert collector(variables) == address


@pytest.mark.parametrize(
    ("variables", "named", "remedy"),
    [
        ({**THERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL", "4318"),
        ({**THERE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "4318"),
        ({**THERE, "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", "none"),
        ({ENDPOINT: f"{SECRET}:4317"}, ENDPOINT, "http://"),
        ({ENDPOINT: "http://"}, ENDPOINT, "host"),
        ({ENDPOINT: f"http://[{SECRET}"}, ENDPOINT, "URL"),
    ],
)
def test_what_asks_for_traces_in_another_way_is_refused_with_its_remedy(
    variables: dict[str, str], named: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        collector(variables)
    assert named in str(refusal.value)
    assert remedy in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_a_limit_that_is_no_number_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    with pytest.raises(ConfigurationError, match="OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"):
        tracing_of(THERE, holder="h", hub="https://hub.test")


# -- contexts ---------------------------------------------------------------------------------------------------------

digits = st.text("0123456789abcdef", min_size=32, max_size=32)
headers = st.builds(
    "{}-{}-{}-{}".format,
    st.sampled_from(["00", "00", "00", "01", "cc", "ff"]),
    st.just("0" * 32) | digits,
    st.just("0" * 16) | digits.map(lambda text: text[:16]),
    st.sampled_from(["00", "01", "02", "03", "ff", "80"]),
)
states = st.none() | st.sampled_from(["a=b", "shop=7,other@x=y", "not a state", "a=b,,c=d"])


@given(headers, states)
def test_a_context_is_read_as_the_sdk_reads_it(header: str, state: str | None) -> None:
    assert WELL_FORMED.fullmatch(header)  # what intake lets in
    carrier = {"traceparent": header} | ({} if state is None else {"tracestate": state})
    theirs = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    ours = context_of(header, state)
    assert (ours is None) == (not theirs.is_valid)
    if ours is not None:
        assert (ours.trace_id, ours.span_id, ours.is_remote) == (theirs.trace_id, theirs.span_id, True)
        assert ours.trace_flags == theirs.trace_flags
        assert ours.trace_state == theirs.trace_state
        assert sampled(header) == bool(theirs.trace_flags.sampled)
        assert traceparent_of(ours)[3:] == header[3:]


@pytest.mark.parametrize("header", [None, "", "00-a-b-01", "x" * 55, f"00-{'x' * 32}-{PARENT}-01"])
def test_what_is_no_context_is_none(header: str | None) -> None:
    assert context_of(header, "a=b") is None


# -- what is drawn ----------------------------------------------------------------------------------------------------


class Kept:
    """Stands where the SDK's processor does, and keeps what it is handed."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracing(kept: Kept) -> OtlpTracing:
    """Draws into `kept`."""
    sender = Sender("collector:4318", holder="here")
    sender._processor = kept  # type: ignore[assignment] # as much as is asked of one
    return OtlpTracing(sender, hub="hub.test")


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    """Of a span, as a plain mapping."""
    return dict(span.attributes or {})


def a_traced(state: RequestState = RequestState.SUBMITTED, **changes: Any) -> Request:
    """A request whose stored context is sampled."""
    return a_request(state, traceparent=TRACEPARENT, **changes)


@pytest.mark.parametrize(
    ("outcome", "named", "error"),
    [
        (HubAccepted(("g0", "g1")), "taken", None),
        (HubRefused(Fault(ErrorCode.UPSTREAM_REJECTED, SECRET)), "refused", "upstream_rejected"),
        (NotSent(SECRET, NOW), "not_sent", "not_sent"),
        (OutcomeUnknown(SECRET), "unknown", "unknown"),
    ],
)
def test_a_post_is_drawn_with_its_outcome_and_no_text_of_the_hub(
    tracing: OtlpTracing, kept: Kept, outcome: SubmitOutcome, named: str, error: str | None
) -> None:
    tracing.posted(a_traced(attempts=3), 0.25, outcome)
    (span,) = kept.spans
    assert (span.name, span.kind) == ("submit", SpanKind.CLIENT)
    told_of = attributes(span)
    assert (told_of["drover.outcome"], told_of.get("error.type"), told_of["drover.attempt"]) == (named, error, 3)
    assert span.status.is_ok == (error is None)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 250_000_000
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert SECRET not in span.to_json()


@pytest.mark.parametrize(
    ("state", "code", "error"),
    [
        (RequestState.SUCCEEDED, None, None),
        (RequestState.FAILED, ErrorCode.UPSTREAM_FAILED, "upstream_failed"),
        (RequestState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED, "deadline_exceeded"),
        (RequestState.CANCELLED, ErrorCode.CANCELLED, None),
    ],
)
def test_a_generation_lasts_from_its_submission_to_its_end(
    tracing: OtlpTracing, kept: Kept, state: RequestState, code: ErrorCode | None, error: str | None
) -> None:
    fault = None if code is None else Fault(code, SECRET)
    tracing.ended(a_traced(state, submitted_at=RECEIVED, finished_at=NOW, error=fault))
    (span,) = kept.spans
    assert (span.name, attributes(span)["drover.state"]) == ("generate", state.value)
    assert attributes(span).get("error.type") == error
    began, ended = (int(moment.timestamp()) * 10**9 for moment in (RECEIVED, NOW))
    assert (span.start_time, span.end_time) == (began, ended)
    assert SECRET not in span.to_json()


def test_a_generation_whose_end_another_clock_told_lasts_no_time_rather_than_less(
    tracing: OtlpTracing, kept: Kept
) -> None:
    tracing.ended(a_traced(RequestState.SUCCEEDED, submitted_at=NOW, finished_at=RECEIVED))
    assert kept.spans[0].start_time == kept.spans[0].end_time


def test_what_was_never_submitted_has_no_generation(tracing: OtlpTracing, kept: Kept) -> None:
    tracing.ended(a_traced(RequestState.EXPIRED, finished_at=NOW))
    assert kept.spans == []


@pytest.mark.parametrize("traceparent", [None, SAMPLED_OUT, f"00-{'0' * 32}-{PARENT}-01"])
def test_a_request_without_a_sampled_context_costs_no_span(
    tracing: OtlpTracing, kept: Kept, traceparent: str | None
) -> None:
    request = a_request(RequestState.SUCCEEDED, submitted_at=RECEIVED, finished_at=NOW, traceparent=traceparent)
    tracing.ended(request)
    tracing.posted(request, 0.1, HubAccepted(("g0",)))
    tracing.doubt_resolved(Doubt(request, {}, True, NOW, NOW), FoundUpstream(("g0",)))
    assert tracing.publishing(an_event(request)) is None
    assert kept.spans == []


@pytest.mark.parametrize(
    ("fact", "named", "error"),
    [
        (FoundUpstream(("g0",)), "found", None),
        (NotFoundUpstream(1, 2), "not_found", None),
        (Undecidable(SECRET), "undecidable", "undecidable"),
    ],
)
def test_a_doubt_is_drawn_from_its_beginning_with_how_it_ended(
    tracing: OtlpTracing,
    kept: Kept,
    fact: FoundUpstream | NotFoundUpstream | Undecidable,
    named: str,
    error: str | None,
) -> None:
    request = a_traced(RequestState.IN_DOUBT)
    tracing.doubt_resolved(Doubt(request, {"prompt": SECRET}, True, RECEIVED, RECEIVED), fact)
    (span,) = kept.spans
    assert (span.name, attributes(span)["drover.outcome"]) == ("resolve doubt", named)
    assert attributes(span).get("error.type") == error
    assert span.start_time == int(RECEIVED.timestamp()) * 10**9
    assert SECRET not in span.to_json()


def an_event(request: Request) -> OutboxEvent:
    """A terminal event of a request."""
    return encode_event(EventName.SUCCEEDED, request, str(UUID(int=7)), NOW)


def test_an_event_carries_the_context_of_its_own_publication(tracing: OtlpTracing, kept: Kept) -> None:
    event = replace(an_event(a_traced(tracestate="shop=7")), reply_to="inbox")
    spans = [tracing.publishing(event), tracing.publishing(event, reply=True)]
    for span in spans:
        assert span is not None
        span.end()
    assert [(span.name, span.kind) for span in kept.spans] == [
        ("generation.events publish", SpanKind.PRODUCER),
        ("reply publish", SpanKind.PRODUCER),
    ]
    assert [attributes(span)["messaging.message.id"] for span in kept.spans] == [str(event.event_id)] * 2
    assert attributes(kept.spans[1])["messaging.destination.anonymous"] is True
    for span, drawn in zip(spans, kept.spans, strict=True):
        assert span is not None
        assert drawn.context is not None
        assert span.traceparent == traceparent_of(drawn.context)
        assert span.traceparent.startswith(f"00-{TRACE}-")
        assert PARENT not in span.traceparent
        assert span.tracestate == "shop=7"


def test_a_span_ends_once(tracing: OtlpTracing, kept: Kept) -> None:
    span = tracing.publishing(an_event(a_traced()))
    assert span is not None
    span.end("first")
    span.end("second")
    assert [attributes(drawn)["error.type"] for drawn in kept.spans] == ["first"]


def test_after_the_close_nothing_is_drawn_and_nothing_fails(tracing: OtlpTracing, kept: Kept) -> None:
    span = tracing.publishing(an_event(a_traced()))
    tracing._sender._processor = None
    assert span is not None
    span.end()
    assert kept.spans == []


@pytest.mark.parametrize(
    ("sampler", "traceparent", "goes_on", "drawn"),
    [
        ("parentbased_always_on", TRACEPARENT, f"00-{TRACE}-*-01", True),
        ("parentbased_always_on", SAMPLED_OUT, None, False),
        ("parentbased_always_on", None, "00-*-*-01", True),
        ("parentbased_always_on", f"00-{'0' * 32}-{PARENT}-01", "00-*-*-01", True),
        ("parentbased_always_off", None, "00-*-*-00", False),
        ("parentbased_always_off", TRACEPARENT, f"00-{TRACE}-*-01", True),
        ("always_off", TRACEPARENT, f"00-{TRACE}-*-00", False),
        ("always_off", SAMPLED_OUT, None, False),
        ("always_on", SAMPLED_OUT, f"00-{TRACE}-*-01", True),
    ],
)
def test_the_sampler_is_asked_where_a_message_comes_in_and_its_answer_goes_on(
    monkeypatch: pytest.MonkeyPatch, kept: Kept, sampler: str, traceparent: str | None, goes_on: str | None, drawn: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    sender = Sender("collector:4318", holder="here")
    sender._processor = kept  # type: ignore[assignment]
    tracing = OtlpTracing(sender, hub="hub.test")
    message = Message(b"{}", traceparent=traceparent, tracestate="shop=7")
    span = tracing.processing(message, read(a_body(), traceparent=traceparent, tracestate="shop=7"))
    assert (span is None) == (goes_on is None)
    if span is not None and goes_on is not None:
        version, trace, parent, flags = span.traceparent.split("-")
        assert goes_on in (f"{version}-{trace}-*-{flags}", f"{version}-*-*-{flags}")
        assert parent != PARENT
        assert span.tracestate == ("shop=7" if TRACE in goes_on else None)
        span.end(outcome="stored")
    assert bool(kept.spans) == drawn


def test_who_sends_is_named_by_the_variables_else_by_the_service_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def resource() -> Mapping[str, object]:
        return dict(Sender("collector:4318", holder="here").resource.attributes)

    assert (resource()["service.name"], resource()["service.instance.id"]) == ("drover", "here")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=clips,service.instance.id=pod-1,team=video")
    found = resource()
    assert (found["service.name"], found["service.instance.id"], found["team"]) == ("clips", "pod-1", "video")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "films")
    assert resource()["service.name"] == "films"


# -- what the SDK complains of ----------------------------------------------------------------------------------------

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def a_complaint(name: str, text: str, *words: object) -> logging.LogRecord:
    """As the SDK logs it."""
    return logging.LogRecord(name, logging.WARNING, "", 0, text, words, None)


@pytest.mark.parametrize(
    ("complaint", "text"),
    [
        (
            a_complaint(EXPORTER, "Failed to export %s batch code: %s, reason: %s", "spans", 403, "Forbidden"),
            "Failed to export spans batch code: 403, reason: Forbidden",
        ),
        (
            a_complaint(EXPORTER, "Transient error %s, retrying in %.2fs.", ConnectionError(SECRET), 1.5),
            "Transient error ConnectionError, retrying in 1.50s.",
        ),
        (a_complaint("opentelemetry.util.re", "Header format invalid! %s", SECRET), "Header format invalid! ..."),
        (a_complaint("opentelemetry.sdk", "50% off"), "50% off"),
        (a_complaint("opentelemetry.sdk", "%d of %s", SECRET, SECRET), "%d of %s"),
    ],
)
def test_a_complaint_is_told_without_addresses_and_keys(complaint: logging.LogRecord, text: str) -> None:
    assert told(complaint) == text


def test_the_same_complaint_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints = Complaints()
    with capture_logs() as lines:
        monkeypatch.setattr("service.otlp.complaints.log", structlog.get_logger())  # the module's may be bound already
        for words in (1, 2, 3):
            complaints.handle(a_complaint("opentelemetry.sdk", "Queue full %s", words))
        complaints.handle(a_complaint("opentelemetry.sdk", "Something else"))
    assert [line["reason"] for line in lines] == ["Queue full 1", "Something else"]
    assert {(line["event"], line["log_level"]) for line in lines} == {("traces.impaired", "warning")}


# -- what the commands say --------------------------------------------------------------------------------------------


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one setting that has no default."""
    monkeypatch.setenv("OXEN_API_KEY", SECRET)


@pytest.mark.usefixtures("key")
def test_config_says_where_traces_go_and_what_would_turn_them_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config"]) == 0
    assert f"Traces are off: {ENDPOINT} would name their collector." in capsys.readouterr().out
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    assert run(["config"]) == 0
    assert "Traces go to collector:4318." in capsys.readouterr().out
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert run(["config"]) == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "told_of"),
    [
        ({}, []),
        (THERE, [(Level.OK, "Traces go to collector:4318.")]),
        ({ENDPOINT: "collector:4318"}, [(Level.FAULT, f"{ENDPOINT}: must be a URL")]),
    ],
)
def test_the_doctor_judges_the_variables_of_traces(variables: dict[str, str], told_of: list[tuple[Level, str]]) -> None:
    checks, _, _ = judge_settings({"OXEN_API_KEY": SECRET, **variables})
    found = [(check.level, check.found) for check in checks if "Traces" in check.found or "OTEL" in check.found]
    assert [(level, text[: len(begins)]) for (level, text), (_, begins) in zip(found, told_of, strict=True)] == told_of


# -- the bus ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_the_broker_did_not_take_is_drawn_with_its_error(tracing: OtlpTracing, kept: Kept) -> None:
    bus = TracedBus(RabbitBus("amqp://127.0.0.1:1/", confirm_timeout_s=0.05), tracing)  # never connected
    event = replace(an_event(a_traced()), reply_to="inbox")
    outcomes = await bus.publish_events([event, replace(event, traceparent=SAMPLED_OUT)])
    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailableError] * 2
    assert await bus.publish_reply(event) is False
    assert [attributes(span)["error.type"] for span in kept.spans] == ["BrokerUnavailableError", "undeliverable"]
    assert attributes(kept.spans[0])["drover.batch_size"] == 2
