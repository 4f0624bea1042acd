"""Requests as this replica has just written them, so that the end of a generation need not read them first.

A snapshot that somebody else's write has made old does no harm: the store refuses what was decided on it, and the
request is read. An end that changes nothing for an old snapshot changes nothing for the row either, since outputs only
move towards their end; anything else that is found out is looked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from service.domain.states import Request

LIMIT = 1_000  # outputs; each takes some two kilobytes
KEPT_S = 900.0  # what stands longer has probably ended elsewhere, and makes room


class Snapshots:
    """Active requests by the ids of their generations. When it is full, what is new is left out: the oldest are those
    that will end next."""

    def __init__(self, limit: int = LIMIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._kept: dict[str, tuple[Request, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, request: Request) -> None:
        """Notes a request as it stands in the database now; forgets it when it has ended."""
        for output in request.outputs:
            if output.generation_id is None:
                continue
            known = self._kept.pop(output.generation_id, None)
            if not request.state.ended and (known is not None or self._has_room()):
                self._kept[output.generation_id] = (request, self._clock())

    def owners(self, generation_ids: Iterable[str]) -> dict[str, Request]:
        """The requests of those of these generations that are kept, by request id."""
        found = (self._kept.get(generation_id) for generation_id in generation_ids)
        return {kept[0].request_id: kept[0] for kept in found if kept is not None}

    def _has_room(self) -> bool:
        while len(self._kept) >= self._limit:
            oldest = next(iter(self._kept))
            if self._kept[oldest][1] > self._clock() - KEPT_S:
                return False
            del self._kept[oldest]
        return True
