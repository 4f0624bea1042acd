"""How `drover status` is printed: as sentences, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
import orjson
from msgspec import Struct

from service.cli.moments import clock, since, span, until
from service.cli.printable import printable
from service.cli.status.explain import Explanation
from service.domain.states import Fault, Output, RequestState
from service.domain.stored import StoredEvent, StoredRequest
from service.postgres.overview import MOST_EVENTS, Overview


class Report(Struct, frozen=True):
    """All that was found of one id."""

    request_id: str
    explanation: Explanation
    stored: StoredRequest | None
    events: Sequence[StoredEvent]


def document_of(report: Report) -> dict[str, object]:
    """The report as JSON."""
    document: dict[str, object] = {
        "request_id": report.request_id,
        "found": report.stored is not None,
        "explanation": msgspec.to_builtins(report.explanation),
        "events": [msgspec.to_builtins(event) for event in report.events],
    }
    stored = report.stored
    if stored is None:
        return document
    request = stored.request
    row: dict[str, object] = {
        "state": request.state.value,
        "source": request.source,
        "model": request.model,
        "num_generations": request.num_generations,
        "target_namespace": request.target_namespace,
        "priority": stored.priority,
        "attempts": request.attempts,
        "seed": request.seed,
        "claimed_by": stored.claimed_by,
        "stop_cause": request.stop_cause,
        "error": request.error,
        "outputs": request.outputs,
        "received_at": request.received_at,
        "attempted_at": stored.attempted_at,
        "claim_expires_at": stored.claim_expires_at,
        "next_attempt_at": stored.next_attempt_at,
        "doubted_at": stored.doubted_at,
        "submitted_at": request.submitted_at,
        "stop_requested_at": request.stop_requested_at,
        "finished_at": request.finished_at,
        "deadline": stored.deadline,
    }
    return {**document, **{name: msgspec.to_builtins(value) for name, value in row.items()}}


def print_json(document: object) -> None:
    """One document, one line."""
    sys.stdout.write(orjson.dumps(document).decode() + "\n")


def print_report(report: Report, now: datetime) -> None:
    """One request as people read it."""
    for line in _lines(report, now):
        sys.stdout.write(printable(line) + "\n")


def _lines(report: Report, now: datetime) -> Iterator[str]:
    stored, told = report.stored, report.explanation
    yield f"{report.request_id}: {'not found' if stored is None else stored.request.state.value}"
    yield f"  {told.now}"
    for sentence in (told.waits_for, told.advice):
        if sentence:
            yield f"  {sentence}"
    if stored is not None:
        request = stored.request
        yield f"  of {request.source}, model {request.model}, priority {stored.priority}, {request.attempts} attempt(s)"
        if not request.state.ended:
            yield f"  deadline {until(stored.deadline, now)}"
        for output in request.outputs:
            yield f"  output {output.index}: {_output(output)}"
    for event in report.events:
        answer = "" if event.fault is None else " (a message that was not accepted)"
        yield f"  {event.sequence:>3} {event.name}{answer} {clock(event.created_at, now)}, {_published(event, now)}"
        if event.fault is not None:
            yield from _fault(event.fault)


def _fault(fault: Fault) -> Iterator[str]:
    yield f"      {fault.code.value}: {fault.message}"
    for detail in fault.details:
        yield f"      {detail.get('path', '')}: {detail.get('message', '')}"


def _output(output: Output) -> str:
    parts = [
        "lost" if output.lost else output.status.value,
        output.generation_id or "",
        output.url or output.error or "",
    ]
    return " ".join(part for part in parts if part)


def _published(event: StoredEvent, now: datetime) -> str:
    if event.published:
        return "published"
    told = "waits for the relay"
    if event.failures:
        told += f", {event.failures} failure(s)"
    if event.next_attempt_at is not None and event.next_attempt_at > now:
        told += f", again at {until(event.next_attempt_at, now)}"
    return told


def overview_document(overview: Overview) -> dict[str, object]:
    """All requests together, as JSON."""
    document: dict[str, object] = msgspec.to_builtins(overview)
    return {**document, "counts": _counts(overview)}


def _counts(overview: Overview) -> dict[str, int]:
    return {state.value: overview.counts.get(state, 0) for state in RequestState if not state.ended}


def print_overview(overview: Overview, now: datetime) -> None:
    """All requests together, as people read it."""
    for line in _overview_lines(overview, now):
        sys.stdout.write(line + "\n")


def _overview_lines(overview: Overview, now: datetime) -> Iterator[str]:
    for state, count in _counts(overview).items():
        oldest = ""
        if state == RequestState.ACCEPTED and overview.waiting_since is not None:
            oldest = f", the oldest since {since(overview.waiting_since, now)}"
        yield f"{state:<11} {count}{oldest}"
    if overview.leader is None:
        yield "leader      nobody: nothing is heard of the hub, and nothing is published; run `drover serve`"
    else:
        heard = (
            "not at present" if overview.stream_opened_at is None else f"since {since(overview.stream_opened_at, now)}"
        )
        yield f"leader      {overview.leader} (term {overview.term}); hears the hub {heard}"
    if overview.hold_s > 0:
        yield f"hub         wants no POSTs for {span(overview.hold_s)} more"
    events = f"{overview.unpublished}{' or more' if overview.unpublished == MOST_EVENTS else ''}"
    oldest = "" if overview.unpublished_since is None else f", the oldest of {since(overview.unpublished_since, now)}"
    yield f"events      {events} wait to be published{oldest}"
