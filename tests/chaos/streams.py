"""One stream, except while a process is frozen or a hand-over lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.evidence import Evidence, StreamSpan
from tests.chaos.findings import Finding
from tests.chaos.schedule import FaultKind

AWAKE_S = 1.5  # a leader that was frozen closes its stream within a second of waking; half a second for the machine
HAND_OVER_S = 2.0  # before and after a replica says that it leads


@dataclass(frozen=True, slots=True)
class Overlap:
    """A stretch of time with more than one stream; `why` None when nothing allows it."""

    began_at: float
    ended_at: float
    why: str | None


def overlaps(evidence: Evidence) -> list[Overlap]:
    """Every such stretch, cut at the edges of what allows it."""
    allowed = [
        (incident.began_at, incident.ended_at + AWAKE_S, "frozen")
        for incident in evidence.incidents
        if incident.kind is FaultKind.FREEZE_LEADER
    ]
    allowed += [
        (line.at - HAND_OVER_S, line.at + HAND_OVER_S, "hand-over")
        for line in evidence.log
        if line.event == "leadership.taken"
    ]
    found: list[Overlap] = []
    for began_at, ended_at in _several(evidence.streams, evidence.ended_at):
        edges = {began_at, ended_at, *(edge for start, end, _ in allowed for edge in (start, end))}
        inside = sorted(edge for edge in edges if began_at <= edge <= ended_at)
        for start, end in pairwise(inside):
            why = next((name for first, last, name in allowed if first <= start and end <= last), None)
            found.append(Overlap(start, end, why))
    return found


def stream_faults(evidence: Evidence) -> Iterator[Finding]:
    """The stretches that nothing allows."""
    for overlap in overlaps(evidence):
        if overlap.why is None:
            seconds = overlap.ended_at - overlap.began_at
            yield Finding("two streams", f"{overlap.began_at:.3f}", f"for {seconds:.3f} s, with nobody frozen")


def _several(streams: Sequence[StreamSpan], now: float) -> Iterator[tuple[float, float]]:
    """From when to when more than one was open."""
    changes = [(span.opened_at, 1) for span in streams]
    changes += [(now if span.closed_at is None else span.closed_at, -1) for span in streams]
    count, since = 0, 0.0
    for at, change in sorted(changes):  # at the same moment the end of one comes before the beginning of another
        if count == 1 and change == 1:
            since = at
        elif count == 2 and change == -1 and at > since:
            yield since, at
        count += change
