"""What a check answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was broken: which (`kind`), about what, and what was seen."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Excused:
    """A generation paid for twice by one of the two causes that are written down, with what proves it."""

    cause: str  # FROZEN or LATE
    request_id: str
    generation_id: str
    proof: str


FROZEN = "a process frozen between its last check and the write"
LATE = "a hub later than the grace"
