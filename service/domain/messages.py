"""What goes in and out over the bus, as values: a received message, a request to store, an event to publish."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from service.domain.states import Fault, Request

DEFAULT_MODEL = "ltx-2-3-quality-text-to-video"
DEFAULT_PRIORITY = 4
ANONYMOUS_SOURCE = "anonymous"


class Message(Struct, frozen=True):
    """A delivery from the bus. Properties that are not text are None and named in `unreadable`.

    `queue` is where it was taken from, `exchange` and `routing_key` where it was published; `properties` has every one
    of them by name, as the bus encodes it. Only the quarantine needs these, to give back the message as it came.
    """

    body: bytes
    content_type: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    source: str = ANONYMOUS_SOURCE
    traceparent: str | None = None
    tracestate: str | None = None
    unreadable: tuple[str, ...] = ()
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    properties: tuple[tuple[str, bytes], ...] = ()


class NewRequest(Struct, frozen=True):
    """A request that intake may store: the row, its input, and what its idempotency is judged by."""

    request: Request
    input: Mapping[str, object]
    content_hash: bytes
    priority: int
    deadline: datetime
    seed_chosen: bool = False
    input_checked: bool = False


class Identified(Struct, frozen=True):
    """A message with a usable id: either a request, or the fault that keeps it from being one."""

    request_id: str
    content_hash: bytes | None  # None: the content could not even be read
    accepted: NewRequest | None
    fault: Fault | None
    traceparent: str | None = None  # the message's own, else its envelope's; with tracing on, that of its processing
    tracestate: str | None = None


class Unidentified(Struct, frozen=True):
    """A message that cannot be answered by id; it is quarantined."""

    fault: Fault
    traceparent: str | None = None
    tracestate: str | None = None


class OutboxEvent(Struct, frozen=True):
    """An event as it is stored and published: `body` is a CloudEvents 1.0 structured JSON document.

    `routing_key` None: it goes to `reply_to` alone.
    """

    event_id: str  # a UUID
    request_id: str
    sequence: int
    routing_key: str | None
    type: str
    body: bytes
    terminal: bool
    correlation_id: str | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    stored: bool = True  # False: the answer to a message that was not accepted


class OutboxRow(Struct, frozen=True):
    """A stored event that waits to be published; `row_id` counts up, `failures` are its own."""

    row_id: int
    event: OutboxEvent
    created_at: datetime
    failures: int = 0


class Repeat(Struct, frozen=True):
    """The same request again: its reply address and correlation id replace the stored ones."""

    request_id: str
    content_hash: bytes | None
    correlation_id: str | None
    reply_to: str | None


class Cancel(Struct, frozen=True):
    """Somebody wants a request to end; where a repeated terminal event is to go besides."""

    request_id: str
    correlation_id: str | None = None
    reply_to: str | None = None


class Pending(Struct, frozen=True):
    """What waits in the database, wherever it was made."""

    retries: bool  # back-offs that are over
    requests: bool
    events: bool
    claims: bool
    doubts: bool
    stops: bool
    cancels: bool
