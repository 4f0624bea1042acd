"""How all requests are at one moment: who leads, what waits and since when. Only read."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from service.domain.standing import Standing, Waiting
from service.domain.states import RequestState
from service.postgres.database import Database
from service.postgres.reader import RequestReader

MOST_EVENTS = MOST_REQUESTS = 100_000  # counted no further; requests: of each state
OPEN = [state.value for state in RequestState if not state.ended]


class Overview(Struct, frozen=True):
    """`counts` of what has not ended; `leader` None: nobody leads; `hold_s`: so long the hub wants no POSTs."""

    counts: dict[RequestState, int]
    leader: str | None
    term: int
    stream_opened_at: datetime | None
    hold_s: float
    unpublished: int
    unpublished_since: datetime | None
    waiting_since: datetime | None


async def read_overview(database: Database, lane: str = "default") -> Overview:
    """Three small statements. Raises DatabaseUnavailableError."""
    counts = await RequestReader(database).counts()
    held = [row for row in await database.fetch("present_lease", lane) if row["left_s"] > 0]
    (row,) = await database.fetch("overview", lane, MOST_EVENTS)
    return Overview(
        counts=counts,
        leader=held[0]["holder"] if held else None,
        term=held[0]["term"] if held else 0,
        stream_opened_at=held[0]["stream_opened_at"] if held else None,
        hold_s=max(0.0, row["hold_s"] or 0.0),
        unpublished=row["unpublished"],
        unpublished_since=row["unpublished_since"],
        waiting_since=row["waiting_since"],
    )


class StandingReader:
    """How everything stands, for the metrics: three small statements a look."""

    def __init__(self, database: Database, lane: str = "default") -> None:
        self._database = database
        self._lane = lane

    async def standing(self) -> Standing:
        """Raises DatabaseUnavailableError."""
        requests = await self._database.fetch("open_requests", OPEN, MOST_REQUESTS)
        in_flight = await self._database.fetchval("count_in_flight")
        (row,) = await self._database.fetch("overview", self._lane, MOST_EVENTS)
        return Standing(
            {RequestState(item["state"]): Waiting(item["count"], item["oldest"]) for item in requests},
            in_flight,
            row["unpublished"],
            row["unpublished_since"],
        )
