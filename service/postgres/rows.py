"""Rows to domain values and back: the one place that knows the columns' order and types.

Types of our own are text on the wire, in both directions: the driver would look up each of them in each session.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from service.domain.errors import ErrorCode
from service.domain.facts import OutputReported
from service.domain.matching import Doubt
from service.domain.messages import NewRequest, OutboxEvent, OutboxRow
from service.domain.states import Claimed, Fault, Output, OutputStatus, Request, RequestState, StopCause
from service.domain.stored import StoredRequest


def columns(rows: Iterable[Sequence[object]], width: int, whole: Container[int] = ()) -> list[object]:
    """Rows turned into the arrays that `unnest` takes: each is the text of an array, since the driver takes its time
    over every element of a list; those of bytes, in the places `whole`, are lists. A column of nothing but nulls, and
    each of no rows, is empty: `unnest` fills it up."""
    turned = list(zip(*rows, strict=True)) or [()] * width
    return [_unless_null(column) if place in whole else array_text(column) for place, column in enumerate(turned)]


def array_text(values: Sequence[object]) -> str:
    """Strings, numbers, truths, times or ids as an array that Postgres reads (manual, 8.15.6); `{}` for nothing but
    nulls."""
    given = len(values) - values.count(None)
    if not given:
        return "{}"
    texts = ["NULL" if value is None else f'"{value}"' for value in values]
    text = ",".join(texts)
    if "\\" in text or text.count('"') != 2 * given:
        texts = ["NULL" if value is None else f'"{_escaped(str(value))}"' for value in values]
        text = ",".join(texts)
    return "{" + text + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _unless_null(column: Sequence[object]) -> Sequence[object]:
    return () if column.count(None) == len(column) else column


def fault_json(fault: Fault | None) -> str | None:
    """The `error` column."""
    if fault is None:
        return None
    document = {"code": fault.code.value, "message": fault.message, "details": list(fault.details)}
    return orjson.dumps(document).decode()


def fault_of(text: str | None) -> Fault | None:
    """The reverse of `fault_json`."""
    if text is None:
        return None
    document = orjson.loads(text)
    return Fault(ErrorCode(document["code"]), document["message"], tuple(document["details"]))


def request_of(row: asyncpg.Record, outputs: tuple[Output, ...] = ()) -> Request:
    """A request from any row with the columns of `load_requests`."""
    return Request(
        request_id=row["request_id"],
        version=row["version"],
        state=RequestState(row["state"]),
        sequence=row["sequence"],
        source=row["source"],
        model=row["model"],
        num_generations=row["num_generations"],
        received_at=row["received_at"],
        target_namespace=row["target_namespace"],
        seed=None if row["seed"] is None else int(row["seed"]),
        attempts=row["attempts"],
        submitted_at=row["submitted_at"],
        finished_at=row["finished_at"],
        error=fault_of(row["error"]),
        outputs=outputs,
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        traceparent=row["traceparent"],
        tracestate=row["tracestate"],
        doubt_looks=row["doubt_looks"],
        stop_cause=None if row["stop_cause"] is None else StopCause(row["stop_cause"]),
        stop_requested_at=row["stop_requested_at"],
    )


def requests_of(rows: Iterable[asyncpg.Record]) -> dict[str, Request]:
    """Requests by id from rows that repeat a request for each of its outputs, in order."""
    return {request_id: request_of(group[0], _outputs_of(group)) for request_id, group in _by_request(rows).items()}


def stored_of(rows: Iterable[asyncpg.Record]) -> list[StoredRequest]:
    """Requests as `find_requests` and `page_requests` answer them, in their order."""
    return [
        StoredRequest(
            request=request_of(group[0], _outputs_of(group)),
            arrival=group[0]["arrival"],
            priority=group[0]["priority"],
            deadline=group[0]["deadline"],
            attempted_at=group[0]["attempted_at"],
            claimed_by=group[0]["claimed_by"],
            claim_expires_at=group[0]["claim_expires_at"],
            next_attempt_at=moment_of(group[0]["next_attempt_at"]),
            doubted_at=group[0]["doubted_at"],
        )
        for group in _by_request(rows).values()
    ]


def moment_of(value: datetime | None) -> datetime | None:
    """A time; None for the infinities, which the driver reads as the ends of the calendar."""
    return None if value is None or value.year in (1, 9999) else value


def _by_request(rows: Iterable[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    """Rows that repeat a request for each of its outputs, in their order."""
    grouped: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        grouped.setdefault(row["request_id"], []).append(row)
    return grouped


def _outputs_of(rows: list[asyncpg.Record]) -> tuple[Output, ...]:
    return tuple(
        Output(
            index=row["index"],
            generation_id=row["generation_id"],
            status=OutputStatus(row["status"]),
            media_type=row["media_type"],
            url=row["url"],
            error=row["output_error"],
            lost=row["lost"],
            missing_since=row["missing_since"],
        )
        for row in rows
        if row["index"] is not None
    )


def output_row(request_id: str, output: Output) -> tuple[object, ...]:
    """An output as `apply` takes it, among the new ones or among those that changed."""
    return (
        output.generation_id,
        request_id,
        output.index,
        output.status.value,
        output.media_type,
        output.url,
        output.error,
        output.lost,
        output.missing_since,
    )


def claimed_of(row: asyncpg.Record, began: datetime, expires: float) -> Claimed:
    """A claimed request with what the hub is to be sent: its input, and the seed if the service chose one."""
    request = request_of(row)
    return Claimed(request, _sent(row, request), row["input_checked"], expires, began_at=began)


def doubt_of(row: asyncpg.Record) -> Doubt:
    """A request in doubt with what was sent for it."""
    request = request_of(row)
    return Doubt(
        request=request,
        parameters=_sent(row, request),
        marked=row["seed_chosen"],
        attempted_at=row["attempted_at"],
        doubted_at=row["doubted_at"],
    )


def _sent(row: asyncpg.Record, request: Request) -> dict[str, Any]:
    parameters: dict[str, Any] = orjson.loads(row["input"])
    if row["seed_chosen"]:
        parameters["seed"] = request.seed
    return parameters


def monotonic_in(seconds: float) -> float:
    """A moment on this process's monotonic clock."""
    return time.monotonic() + seconds


def new_request_row(new: NewRequest, accepted: OutboxEvent) -> tuple[object, ...]:
    """The arguments of `insert_requests` for one request, in order."""
    request = new.request
    return (
        request.request_id,
        request.source,
        request.model,
        orjson.dumps(new.input),
        new.input_checked,
        request.num_generations,
        request.target_namespace,
        new.content_hash,
        request.seed,
        new.seed_chosen,
        new.priority,
        new.deadline,
        request.metadata,
        request.correlation_id,
        request.reply_to,
        request.traceparent,
        request.tracestate,
        accepted.event_id,
        accepted.body,
    )


def report_row(report: OutputReported) -> tuple[object, ...]:
    """The arguments of `insert_orphans` for one report."""
    return (report.generation_id, report.status.value, report.media_type, report.url, report.error)


def report_of(row: asyncpg.Record) -> OutputReported:
    """The reverse of `report_row`."""
    return OutputReported(
        row["generation_id"], OutputStatus(row["status"]), row["media_type"], row["url"], row["error"]
    )


def outbox_row_of(row: asyncpg.Record) -> OutboxRow:
    """A stored event from a row of `due_events`."""
    event = OutboxEvent(
        event_id=row["event_id"],
        request_id=row["request_id"],
        sequence=row["sequence"],
        routing_key=row["routing_key"],
        type=row["type"],
        body=row["body"],
        terminal=row["terminal"],
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        traceparent=row["traceparent"],
        tracestate=row["tracestate"],
        stored=row["stored"],
    )
    return OutboxRow(row["row_id"], event, row["created_at"], row["failures"])
