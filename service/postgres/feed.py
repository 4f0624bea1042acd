"""The outbox as those follow it who read it from here instead of from the bus."""

from __future__ import annotations

from collections.abc import Sequence

from service.domain.feed import LAST, FeedEvent, Look, Place, Row
from service.postgres.database import Database


class FeedReader:
    """One statement for each look. All raise DatabaseUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def end(self) -> int:
        """The last row there is."""
        return int(await self._database.fetchval("feed_end"))

    async def look(self, behind: int, again: Sequence[int], limit: int, *, up_to: int = LAST) -> Look:
        """The next `limit` rows, and those that are to be looked at again."""
        found = await self._database.fetch("feed_look", behind, limit, list(again), up_to)
        rows = [
            Row(
                row["row_id"],
                row["published"],
                FeedEvent(row["row_id"], row["request_id"], row["type"], row["body"])
                if row["shown"] and row["published"]
                else None,
            )
            for row in found
            if row["row_id"] is not None
        ]
        return Look(rows, found[0]["oldest_running"], found[0]["next_begun"])

    async def missed(self, request_id: str, since: Place, now: Place, *, answers: bool) -> list[FeedEvent]:
        """The published events of one request between two places; with `answers`, those to messages that were not
        accepted, too."""
        between = (since.high, list(since.open), now.high, list(now.open))
        found = await self._database.fetch("missed_of", request_id, *between, answers)
        return [FeedEvent(row["row_id"], row["request_id"], row["type"], row["body"]) for row in found]
