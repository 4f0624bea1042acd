"""Logs and metrics. A line for each change of a request's state, and some for the service's own connections; no prompt,
no secret and no message body is ever logged."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service import tracebacks
from service.clock import utc_now
from service.domain.errors import ErrorCode
from service.domain.standing import Standing
from service.domain.states import EventName, RequestState

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
STEPS = ("intake", "quarantine", "cancels", "outcomes", "gaps", "unheard", "unanswered", "waits", "reports", "relay")
REJECTIONS = tuple(
    code.value
    for code in (
        ErrorCode.INVALID_MESSAGE,
        ErrorCode.INVALID_INPUT,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.IDEMPOTENCY_CONFLICT,
    )
)
M = TypeVar("M", Counter, Histogram)
QUIET_LOGGERS = ("aiohttp_sse_client", "aio_pika", "aiormq", "asyncio", "asyncpg", "aiohttp")


class Metrics:
    """Every metric of the service, in a registry of its own; names and units by Prometheus' conventions."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._leaders = _LeadersCollector()
        registry.register(self._leaders)
        build = Gauge("drover_build_info", "1; the label tells which version runs.", ["version"], registry=registry)
        build.labels(version("drover")).set(1)
        self.transitions = _kept(
            Counter("drover_requests", "Requests that entered a state.", ["state"], registry=registry)
        )
        self.rejections = Counter("drover_rejections", "Messages not accepted, by code.", ["code"], registry=registry)
        self.published = Counter(
            "drover_events_published", "Events confirmed by the broker.", ["type"], registry=registry
        )
        self.replies_undeliverable = Counter(
            "drover_replies_undeliverable", "Replies to queues that were not there.", registry=registry
        )
        self.submits = _kept(
            Histogram(
                "drover_submit_duration_seconds", "POSTs to the hub.", ["outcome"], buckets=SECONDS, registry=registry
            )
        )
        self.batch_sizes = Histogram(
            "drover_batch_size", "Items done in one commit.", ["step"], buckets=SIZES, registry=registry
        )
        self.batch_durations = Histogram(
            "drover_batch_duration_seconds", "Time for one batch.", ["step"], buckets=SECONDS, registry=registry
        )
        self.batch_failures = Counter(
            "drover_batch_failures",
            "Batches that failed: tried again, or divided.",
            ["step"],
            registry=registry,
        )
        self.stages = Histogram(
            "drover_stage_duration_seconds", "Of a request, by stage.", ["stage"], buckets=STAGES, registry=registry
        )
        self.hub_calls = _kept(
            Counter("drover_hub_calls", "Calls to the hub, by their outcome.", ["call", "outcome"], registry=registry)
        )
        self.hub_call_durations = _kept(
            Histogram(
                "drover_hub_call_duration_seconds", "Calls to the hub.", ["call"], buckets=SECONDS, registry=registry
            )
        )
        self.sweeps = Histogram("drover_sweep_duration_seconds", "Sweeps.", buckets=SECONDS, registry=registry)
        self.doubts_opened = Counter(
            "drover_doubts_opened", "POSTs whose outcome was unknown, by cause.", ["cause"], registry=registry
        )
        self.doubts = Counter("drover_doubts", "Doubts that a look settled, by how.", ["outcome"], registry=registry)
        self.unowned = Counter(
            "drover_generations_unowned",
            "Generations paid for that belong to no request.",
            ["cause"],
            registry=registry,
        )
        self.fetched = Counter("drover_generations_fetched", "Single generations asked for.", registry=registry)
        self.stream_connected = Gauge(
            "drover_stream_connected", "1 while this replica holds the stream.", registry=registry
        )
        self.stream_reconnects = Counter("drover_stream_reconnects", "Ends of the stream.", registry=registry)
        self.stream_gaps = Histogram(
            "drover_stream_gap_seconds",
            "From the end of a stream, or from taking the lead, to the next opening.",
            buckets=SECONDS,
            registry=registry,
        )
        self.completions = Counter(
            "drover_completions", "Ends of generations, by how they were learned.", ["by"], registry=registry
        )
        self.cost = Counter(
            "drover_cost_dollars", "List price of what the hub took: an estimate.", ["model"], registry=registry
        )
        self.unpriced = Counter(
            "drover_unpriced_generations",
            "Generations that the hub took and whose price cannot be told.",
            ["model"],
            registry=registry,
        )
        self.consuming = Gauge("drover_consuming", "1 while requests are taken from the broker.", registry=registry)
        self.publishing_blocked = Gauge(
            "drover_publishing_blocked", "1 while an alarm of the broker blocks publishers.", registry=registry
        )
        self.submission_paused = Gauge(
            "drover_submission_paused", "1 while nothing of the scope is sent.", ["scope", "reason"], registry=registry
        )
        self.breaker_open = Gauge(
            "drover_breaker_open", "1 while submission is paused because the hub fails.", registry=registry
        )
        self.feed_followers = Gauge("drover_feed_followers", "Who follows GET /v1/events here.", registry=registry)
        self.leading = Gauge("drover_leading", "1 while this replica leads.", registry=registry)
        self.leadership_taken = Counter(
            "drover_leadership_taken", "Times that this replica took the lead.", registry=registry
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that begins with its first event hides that event from `increase`, which needs two samples."""
        known = (
            (self.transitions, [state.value for state in RequestState]),
            (self.published, [event.value for event in EventName]),
            (self.rejections, REJECTIONS),
            (self.batch_failures, STEPS),
            (self.doubts_opened, ("post", "lapsed")),
            (self.doubts, ("adopted", "submitted_again", "undecided")),
            (self.unowned, ("answered_late", "shown_late")),
            (self.completions, ("stream", "look", "stop")),
        )
        for counter, labels in known:
            for label in labels:
                counter.labels(label)

    def batch(self, step: str, size: int, seconds: float) -> None:
        """Notes one batch of a step."""
        self.batch_sizes.labels(step).observe(size)
        self.batch_durations.labels(step).observe(seconds)

    def stage(self, name: str) -> Callable[[float], None]:
        """Notes seconds in a stage. Two replicas' clocks may have told its ends: what ends before it begins is 0, since
        Prometheus takes a sum that falls for a restart, and would add the whole of it."""
        histogram = self.stages.labels(name)
        return lambda seconds: histogram.observe(max(0.0, seconds))

    def hub_call(self, call: str, outcome: str, seconds: float) -> None:
        """Notes one call to the hub."""
        self.hub_calls.labels(call, outcome).inc()
        self.hub_call_durations.labels(call).observe(seconds)

    def spend(self, model: str, generations: int, each: float | None) -> None:
        """Notes what the hub took, at its list price in dollars; None: nobody can tell."""
        if each is None:
            self.unpriced.labels(model).inc(generations)
        else:
            self.cost.labels(model).inc(generations * each)

    def show_standing(self, standing: Standing | None, term: int = 0) -> None:
        """What the leading replica shows of the whole; None: nothing, here or any more."""
        self._leaders.standing = None if standing is None else (standing, term, utc_now())

    def show_heard(self, heard_at: float | None) -> None:
        """When the stream said something last (monotonic); None: this replica does not hold it."""
        self._leaders.heard_at = heard_at


class _LeadersCollector(Collector):
    """Gauges that are there at the leading replica alone, so that sums and maxima over the replicas are right."""

    def __init__(self) -> None:
        self.standing: tuple[Standing, int, datetime] | None = None
        self.heard_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """As of the look, ages too: what was waiting then may be gone."""
        silence = GaugeMetricFamily("drover_stream_silence_seconds", "Since the last byte on the stream.")
        if self.heard_at is not None:
            silence.add_metric([], time.monotonic() - self.heard_at)
        yield silence
        yield from self._of_standing()

    def _of_standing(self) -> Iterator[Metric]:
        term = GaugeMetricFamily("drover_leadership_term", "Rises at every change of hands.")
        backlog = GaugeMetricFamily("drover_backlog_requests", "Requests that have not ended.", labels=["state"])
        oldest = GaugeMetricFamily(
            "drover_backlog_oldest_age_seconds", "Since the oldest of them was received.", labels=["state"]
        )
        in_flight = GaugeMetricFamily("drover_generations_in_flight", "Generations at the hub that have not ended.")
        outbox = GaugeMetricFamily("drover_outbox_events", "Events that are stored and not confirmed yet.")
        lag = GaugeMetricFamily("drover_outbox_oldest_age_seconds", "Since the oldest of them was stored.")
        if self.standing is not None:
            standing, number, now = self.standing
            term.add_metric([], number)
            in_flight.add_metric([], standing.in_flight)
            outbox.add_metric([], standing.unpublished)
            lag.add_metric([], _age(standing.unpublished_since, now))
            for state, waiting in standing.requests.items():
                backlog.add_metric([state.value], waiting.count)
                oldest.add_metric([state.value], _age(waiting.oldest, now))
        yield from (term, backlog, oldest, in_flight, outbox, lag)


def _kept(metric: M) -> M:
    """With its children at hand, for what is counted at each request: the library's look-up takes ten times as long."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign] # one for each combination, as before
    return metric


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds; 0 where there is nothing that could be old."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def configure_logging(log_format: str | None = None, level: int = logging.INFO) -> None:
    """Sets structlog and the standard library's logging up, once. `log_format`: json, console, or by the terminal."""
    console = log_format == "console" or (log_format is None and sys.stdout.isatty())
    rendered: list[structlog.typing.Processor] = (
        [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(exception_formatter=tracebacks.render_to),
        ]
        if console
        else [
            _stamp,
            structlog.processors.ExceptionRenderer(tracebacks.render),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    )
    structlog.configure(
        processors=[structlog.processors.add_log_level, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout) if console else structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # Libraries speak through the standard library: warnings and worse go to stderr; events (with URLs) never.
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _stamp(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The time as a value, which orjson writes in a tenth of the time."""
    event["timestamp"] = utc_now()
    return event


def _json(event: MutableMapping[str, Any], **_: object) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z)
