"""Leadership: a lease row with a term that rises at every change of hands.

All times of the lease are the database's clock, so replicas need not agree on theirs. A leader counts its lease on its
own monotonic clock from before it asked, so it stops acting before anybody else may begin.
"""

from __future__ import annotations

from datetime import datetime

from service.postgres.database import Database

CHANNEL = "drover_leadership"


class LeaseStore:
    """The lease of one lane (a hub account); `holder` names this process."""

    def __init__(self, database: Database, holder: str, lane: str = "default") -> None:
        self._database = database
        self._holder = holder
        self._lane = lane

    async def take(self, seconds: float, now: datetime | None = None) -> int | None:
        """Takes or renews the lease; the term while it is ours, else None. `now` only to move time in tests."""
        term = await self._database.fetchval("take_lease", self._lane, self._holder, seconds, now)
        return None if term is None else int(term)

    async def give_back(self) -> None:
        """Ends the lease and tells all replicas, so that the next one need not wait for it."""
        await self._database.fetch("give_back_lease", self._lane, self._holder, CHANNEL)

    async def note_stream_opened(self, opened_at: datetime | None, term: int) -> None:
        """Tells all replicas since when completions are heard (None: they are not)."""
        await self._database.fetch("note_stream_opened", self._lane, self._holder, opened_at, term)
