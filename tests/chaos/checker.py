"""Holds what was seen against what is promised. Pure: evidence in, a verdict out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.evidence import TERMINAL, Evidence, Heard
from tests.chaos.findings import FROZEN, LATE, Excused, Finding
from tests.chaos.purchases import purchase_faults
from tests.chaos.streams import overlaps, stream_faults
from tests.chaos.traffic import Asked

# Lines that only a defect writes. What a fault makes the service say in the ordinary way is a warning.
DEFECTS = frozenset(
    {
        "batch.broke",
        "component.broke",
        "component.returned",
        "component.stuck",
        "drain.failed",
        "event.broke",
        "event.not_published",
        "generation.foreign",
        "message.broke",
        "request.contended",
        "submitter.post_broken",
    }
)
STOPPED = frozenset({"cancelled", "expired"})  # perhaps before anything was bought
FOUND = "found at the hub by its content"
ACTIVE = frozenset({"queued", "processing"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is broken, what is excused, and how much of everything there was."""

    findings: tuple[Finding, ...]
    excused: tuple[Excused, ...]
    counts: dict[str, int]


def check(evidence: Evidence) -> Verdict:
    """Every check."""
    bought, excused = purchase_faults(evidence)
    findings = [
        *_ends(evidence),
        *bought,
        *_sequences(evidence),
        *_outputs(evidence, {one.generation_id for one in excused}),
        *_unresolved(evidence, {one.generation_id for one in excused}),
        *_unheard(evidence),
        *stream_faults(evidence),
        *_processes(evidence),
    ]
    return Verdict(tuple(findings), tuple(excused), _counts(evidence, excused))


def _by_request(evidence: Evidence) -> dict[str, list[Heard]]:
    heard: dict[str, list[Heard]] = defaultdict(list)
    for event in evidence.heard:
        heard[event.request_id].append(event)
    return heard


def _ends(evidence: Evidence) -> Iterator[Finding]:
    """Exactly one terminal event for each request, and the one that it must be."""
    heard = _by_request(evidence)
    known = {request.request_id for request in evidence.asked}
    for request in evidence.asked:
        ends = {event.event_id: event for event in heard[request.request_id] if event.name in TERMINAL}
        if request.request_id not in evidence.confirmed:
            yield Finding("not sent", request.request_id, "the broker never confirmed it: the campaign proves nothing")
        elif not ends:
            yield Finding("lost", request.request_id, _whereabouts(request, evidence))
        elif len(ends) > 1:
            told = ", ".join(f"{event.name} {event_id}" for event_id, event in ends.items())
            yield Finding("several ends", request.request_id, told)
        for event in ends.values():
            if event.name not in request.ends:
                detail = f"{event.name} ({event.code}) instead of {' or '.join(sorted(request.ends))}"
                yield Finding("wrong end", request.request_id, detail)
    for request_id in heard.keys() - known:
        yield Finding("foreign event", request_id, "nobody asked for it")


def _whereabouts(request: Asked, evidence: Evidence) -> str:
    """How far a request came that has no end."""
    row = next((row for row in evidence.requests if row.request_id == request.request_id), None)
    if row is None:
        return "confirmed by the broker, and not in the database"
    if not row.ended:
        return f"it is {row.state}"
    unpublished = any(event.request_id == row.request_id and not event.published for event in evidence.events)
    return f"it is {row.state}, and its events are {'not all published' if unpublished else 'marked as published'}"


def _sequences(evidence: Evidence) -> Iterator[Finding]:
    """Events of one request: numbered without a gap, first heard in order, and the same on every repeat."""
    for request_id, events in _by_request(evidence).items():
        if all(event.name == "rejected" for event in events):
            continue
        first: dict[str, Heard] = {}
        for event in events:
            known = first.setdefault(event.event_id, event)
            if known.digest != event.digest:
                yield Finding("changed event", request_id, f"{event.event_id} came with two bodies")
        told = [event.sequence for event in first.values()]
        if any(later <= earlier for earlier, later in pairwise(told)):
            yield Finding("order", request_id, f"sequences as first heard: {told}")
        if sorted(set(told)) != list(range(1, max(told) + 1)) or len(set(told)) != len(told):
            yield Finding("sequence gap", request_id, f"sequences heard: {sorted(told)}")
        if any(event.name in TERMINAL for event in first.values()):
            last = max(first.values(), key=lambda event: event.sequence)
            if last.name not in TERMINAL:
                yield Finding("order", request_id, f"{last.name} has a higher sequence than the end")


def _outputs(evidence: Evidence, excused: set[str]) -> Iterator[Finding]:
    """What terminal events say of outputs: our own generations, each in one request, as the hub ended them."""
    asked = {request.request_id: request for request in evidence.asked}
    ledger = {generation.generation_id: generation for generation in evidence.bought}
    of: dict[str, str] = {}
    for event in evidence.heard:
        request = asked.get(event.request_id)
        if event.name not in TERMINAL or event.name == "rejected" or request is None:
            continue
        if not (event.name in STOPPED and not event.outputs) and len(event.outputs) != request.num_generations:
            detail = f"{len(event.outputs)} outputs of {request.num_generations} ({event.name}, {event.code})"
            yield Finding("outputs", event.request_id, detail)
        for generation_id, status, url in event.outputs:
            if generation_id is None:
                yield Finding("outputs", event.request_id, "an output that the hub never showed")
                continue
            if of.setdefault(generation_id, event.request_id) != event.request_id:
                yield Finding("outputs", event.request_id, f"{generation_id} belongs to {of[generation_id]} as well")
            generation = ledger.get(generation_id)
            if generation is None or generation.prompt != request.prompt:
                yield Finding("foreign output", event.request_id, f"{generation_id} was bought for another content")
            elif generation.status != status or generation_id in excused:
                yield Finding("outputs", event.request_id, f"{generation_id} is {generation.status}, told as {status}")
            if (status == "succeeded") != (url is not None) or (url is not None and generation_id not in url):
                yield Finding("foreign output", event.request_id, f"the URL is not that of {generation_id}")


def _unresolved(evidence: Evidence, excused: set[str]) -> Iterator[Finding]:
    """Nothing is left half done, here or at the hub."""
    for row in evidence.requests:
        if not row.ended:
            yield Finding("unresolved", row.request_id, f"it is {row.state} after {row.attempts} attempts")
    for output in evidence.outputs:
        if output.status in ACTIVE:
            yield Finding("unresolved", output.request_id, f"its output {output.generation_id} is {output.status}")
    for row_of_event in evidence.events:
        if not row_of_event.published:
            yield Finding("unresolved", row_of_event.request_id, f"its event {row_of_event.name} is not published")
    owned = {output.generation_id for output in evidence.outputs} | excused
    for generation in evidence.bought:
        if generation.status in ACTIVE and generation.generation_id not in owned:
            yield Finding("unresolved", generation.generation_id, "in flight at the hub, and nobody's")


def _unheard(evidence: Evidence) -> Iterator[Finding]:
    """Everything that is stored was heard, and nothing lies in the quarantine."""
    last = {row.request_id: row.sequence for row in evidence.requests}
    heard: dict[str, int] = defaultdict(int)
    for event in evidence.heard:
        heard[event.request_id] = max(heard[event.request_id], event.sequence)
    for request_id, sequence in last.items():
        if heard[request_id] < sequence:
            yield Finding("unheard", request_id, f"event {sequence} is stored, {heard[request_id]} was the last heard")
    if evidence.quarantined:
        yield Finding("quarantined", "generation.dead", f"{evidence.quarantined} messages, and none was malformed")


def _processes(evidence: Evidence) -> Iterator[Finding]:
    """What the replicas said and how they ended."""
    for line in evidence.log:
        if line.event in DEFECTS or (line.level in ("error", "critical") and line.event != "generation.unowned"):
            told = {name: value for name, value in line.fields.items() if name not in ("event", "level", "timestamp")}
            yield Finding("logged", line.event, f"{line.replica} at {line.at:.3f}: {str(told)[:2000]}")
    for said in evidence.stderr:
        yield Finding("stderr", said.partition(":")[0], said)
    for replica, code in evidence.exit_codes.items():
        if code != 0:
            yield Finding("exit", replica, f"asked to end, it ended with {code}")


def _counts(evidence: Evidence, excused: Sequence[Excused]) -> dict[str, int]:
    heard = Counter(event.name for event in evidence.heard)
    distinct = {event.event_id for event in evidence.heard}
    moves = [line for line in evidence.log if line.event.startswith("request.")]
    requeued = Counter(line.fields.get("was") for line in moves if line.event == "request.requeued")
    causes = Counter(one.cause for one in excused)
    several = overlaps(evidence)
    return {
        "requests asked for": len(evidence.asked),
        "of them confirmed by the broker": len(evidence.confirmed),
        "generations asked for": sum(request.num_generations for request in evidence.asked),
        "generations in the hub's ledger": len(evidence.bought),
        f"bought twice, {FROZEN}": causes[FROZEN],
        f"bought twice, {LATE}": causes[LATE],
        "deliveries of events": len(evidence.heard),
        "distinct events": len(distinct),
        "events delivered again": len(evidence.heard) - len(distinct),
        **{f"deliveries of {name}": heard[name] for name in sorted(heard)},
        "doubts": sum(line.event == "request.in_doubt" for line in moves),
        "doubts settled by what the hub shows": sum(line.fields.get("reason") == FOUND for line in moves),
        "doubts not found in two listings, submitted again": requeued["in_doubt"],
        "not sent (429, no connection), submitted again": requeued["submitting"],
        **{f"calls of the hub: {name}": evidence.calls.get(name, 0) for name in ("post", "list", "get", "delete")},
        "streams opened": len(evidence.streams),
        "overlaps while one was frozen": sum(overlap.why == "frozen" for overlap in several),
        "overlaps during a hand-over": sum(overlap.why == "hand-over" for overlap in several),
    }
