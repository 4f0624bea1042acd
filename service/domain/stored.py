"""What an operator and the API see of a request: the row as it stands, and what was told of it. Only read."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from service.domain.states import Fault, Request


class StoredRequest(Struct, frozen=True):
    """A request with what its row says besides. `arrival` counts up in the order in which requests were stored."""

    request: Request
    arrival: int
    priority: int
    deadline: datetime
    attempted_at: datetime | None  # when its latest attempt was claimed
    claimed_by: str | None  # the replica of the latest attempt
    claim_expires_at: datetime | None
    next_attempt_at: datetime | None  # None: it waits for no time
    doubted_at: datetime | None


class StoredEvent(Struct, frozen=True):
    """An event of a request, without its body. Not `published`: it waits for the relay, after `failures` tries.
    `fault`: of an answer to a message that was not accepted, why."""

    name: str
    sequence: int
    created_at: datetime
    published: bool
    failures: int = 0
    next_attempt_at: datetime | None = None
    fault: Fault | None = None
