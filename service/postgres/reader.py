"""Requests and what was told of them, for who asks: the API and the commands. Nothing here decides or writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from service.domain.states import RequestState
from service.domain.stored import StoredEvent, StoredRequest
from service.postgres import rows
from service.postgres.database import Database
from service.wire.events import read_fault

NEWEST = 2**63 - 1


class RequestReader:
    """One statement for each question. All raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, request_id: str) -> StoredRequest | None:
        """One request; None when it is not stored."""
        found = rows.stored_of(await self._database.fetch("find_requests", [request_id]))
        return found[0] if found else None

    async def page(
        self, limit: int, *, states: Collection[RequestState] = (), before: int | None = None
    ) -> list[StoredRequest]:
        """The newest of these states (none: of all), from behind the arrival `before` on."""
        wanted = [state.value for state in states or RequestState]
        found = await self._database.fetch("page_requests", wanted, NEWEST if before is None else before, limit)
        return rows.stored_of(found)

    async def events(self, request_id: str) -> Sequence[StoredEvent]:
        """What was told of it, in order; also of an id whose messages were not accepted."""
        return [
            StoredEvent(
                row["type"],
                row["sequence"],
                row["created_at"],
                row["published"],
                row["failures"] or 0,
                rows.moment_of(row["next_attempt_at"]),
                None if row["answer"] is None else read_fault(row["answer"]),
            )
            for row in await self._database.fetch("events_of", request_id)
        ]

    async def counts(self) -> dict[RequestState, int]:
        """How many requests have not ended, by state."""
        return {RequestState(row["state"]): row["count"] for row in await self._database.fetch("count_by_state")}

    async def content_hash(self, request_id: str) -> bytes | None:
        """What idempotency compares; None when the id is not stored."""
        found: bytes | None = await self._database.fetchval("content_of", request_id)
        return found

    async def early_cancel(self, request_id: str) -> bool:
        """Whether a cancel waits for this request to come."""
        return bool(await self._database.fetchval("early_cancel", request_id))
