"""What was seen: the values that the checker judges. Moments are Unix seconds of this machine's one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.schedule import FaultKind
from tests.chaos.traffic import Asked

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "rejected"})


@dataclass(frozen=True, slots=True)
class Heard:
    """One delivery of an event to the consumer, in the order in which they came."""

    event_id: str
    request_id: str
    name: str
    sequence: int
    at: float
    digest: bytes  # of the body
    outputs: tuple[tuple[str | None, str, str | None], ...] = ()  # generation id, status, url
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Bought:
    """One generation in the hub's ledger; `fate` is what became of the answer to its POST."""

    generation_id: str
    prompt: str
    status: str
    posted_at: float
    ended_at: float | None
    fate: str = ""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A stored request."""

    request_id: str
    state: str
    sequence: int
    attempts: int
    ended: bool


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A stored output; the id is None for one that the hub never showed."""

    request_id: str
    generation_id: str | None
    status: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row of the outbox; `stored` False for the answer to a message that was not accepted."""

    event_id: str
    request_id: str
    sequence: int
    name: str
    stored: bool
    published: bool


@dataclass(frozen=True, slots=True)
class StreamSpan:
    """One stream as the hub saw it; `closed_at` None while it is open."""

    opened_at: float
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault as it was done. `began_at` is the signal, `ended_at` the SIGCONT, or the moment at which a restarted
    server answered again; `replica` is the victim."""

    kind: FaultKind
    began_at: float
    ended_at: float
    replica: str | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a replica's log."""

    replica: str
    at: float
    event: str
    level: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that the checker knows."""

    asked: Sequence[Asked]
    confirmed: frozenset[str]  # ids that the broker has confirmed at least once
    heard: Sequence[Heard] = ()
    bought: Sequence[Bought] = ()
    requests: Sequence[RequestRow] = ()
    outputs: Sequence[OutputRow] = ()
    events: Sequence[EventRow] = ()
    streams: Sequence[StreamSpan] = ()
    incidents: Sequence[Incident] = ()
    log: Sequence[LogLine] = ()
    stderr: Sequence[str] = ()  # `replica: line`
    exit_codes: Mapping[str, int] = field(default_factory=dict)  # of the replicas that were asked to end
    calls: Mapping[str, int] = field(default_factory=dict)  # of the hub's endpoints
    strikes: Mapping[str, int] = field(default_factory=dict)  # of the hub's own faults
    quarantined: int = 0  # messages in `generation.dead`
    ended_at: float = 0.0  # when the evidence was taken
