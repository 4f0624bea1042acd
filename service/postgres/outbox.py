"""The outbox: events that were stored with what they tell, and wait for the relay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from service.domain.messages import OutboxRow
from service.postgres import rows
from service.postgres.database import Database

CHANNEL = "drover_outbox"


class Outbox:
    """Due events in order, and their marks. Each method is one statement and one commit."""

    def __init__(self, database: Database, lane: str = "default") -> None:
        self._database = database
        self._lane = lane

    async def due(self, limit: int, now: datetime, without: Collection[int] = ()) -> list[OutboxRow]:
        """The oldest events that may be published now, but for those `without` which somebody is publishing."""
        found = await self._database.fetch("due_events", now, limit, list(without))
        return [rows.outbox_row_of(row) for row in found]

    async def mark_published(self, row_ids: Sequence[int], term: int) -> int:
        """Marks what the broker confirmed, while the term holds; else the next leader publishes it again. Answers how
        many it marked."""
        return int(await self._database.fetchval("mark_published", list(row_ids), self._lane, term))

    async def mark_failed(self, failed: Sequence[tuple[int, datetime]]) -> None:
        """Puts rows off until their next attempt."""
        await self._database.fetch("mark_failed", *rows.columns(failed, 2))

    async def backlog(self, limit: int) -> int:
        """How many events wait, counted up to `limit`."""
        return int(await self._database.fetchval("outbox_backlog", limit))

    async def last(self) -> int:
        """The newest event that waits; 0: none does."""
        return int(await self._database.fetchval("last_event") or 0)

    async def notify(self) -> None:
        """Wakes the leader's relay, in whichever process it runs. A lost one costs a second."""
        async with self._database.connection("waking the relay") as connection:
            await connection.execute(f"notify {CHANNEL}")
