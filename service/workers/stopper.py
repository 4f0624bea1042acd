"""Ends at the hub what is to end early: cancelled requests, and those whose deadline has passed.

Every output is settled by its own fact: the hub is asked to end it, and a GET says how it ended. A hub that takes its
time is asked again, more and more rarely; one that never does it leaves the output lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

import structlog

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.facts import Fact, OutputAbandoned, StopPending, StopRequested
from service.domain.patience import Patience
from service.domain.states import Request, StopCause
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
AT_ONCE = 200
FIRST_RETRY, LAST_RETRY = timedelta(seconds=0.5), timedelta(seconds=60)
NEVER_ENDED = "The hub was asked to end this generation and has not done it."


class Stopper:
    """Works while this replica leads."""

    name = "stopper"

    def __init__(
        self, store: Store, hub: Hub, settler: Settler, gap: Gap, wakeups: Wakeups, *, patience: Patience
    ) -> None:
        self._store = store
        self._hub = hub
        self._settler = settler
        self._gap = gap
        self._wakeups = wakeups
        self._patience = patience

    async def run(self) -> None:
        """Looks when something is to be stopped, until cancelled."""
        while True:
            await self._wakeups.stops.wait()
            self._wakeups.stops.clear()
            try:
                await self.expire(utc_now())
                await self.stop(utc_now())
            except TransientError as error:
                log.warning("stops.delayed", reason=str(error))
                await asyncio.sleep(1)

    async def drain(self) -> None:
        """Nothing is held here: what was not stopped is stopped by the next leader."""

    async def expire(self, now: datetime) -> None:
        """Stops the requests whose deadline has passed."""
        fact = StopRequested(StopCause.DEADLINE)
        while request_ids := await self._store.overdue(AT_ONCE, now):
            await self._settler.settle([Case(request_id, [fact]) for request_id in request_ids])

    async def stop(self, now: datetime) -> None:
        """Asks the hub to end every output that is due, and settles each by what a GET then says."""
        while requests := await self._store.stopping(AT_ONCE, now):
            active = [key for request in requests for key in _active(request)]
            await asyncio.gather(*map(self._end, active))
            unended = (await self._gap.fetch(active, by="stop")).active
            cases = [Case(request.request_id, self._facts(request, unended, now)) for request in requests]
            await self._settler.settle(cases)

    async def _end(self, generation_id: str) -> None:
        async with self._gap.turn:
            try:
                await self._hub.cancel(generation_id)
            except (HubUnavailableError, HubRefusedKeyError) as error:
                log.warning("generation.not_cancelled", generation_id=generation_id, reason=str(error))

    def _facts(self, request: Request, unended: Collection[str], now: datetime) -> list[Fact]:
        """What holds after the GETs: outputs that go on at the hub for too long are given up; those that could not be
        asked for are not."""
        waited = now - max(request.stop_requested_at or now, request.submitted_at or now)
        retry_at = utc_now() + min(max(waited / 2, FIRST_RETRY), LAST_RETRY)
        given_up = unended if waited >= self._patience.stop else ()
        return [
            *(OutputAbandoned(key, NEVER_ENDED) for key in _active(request) if key in given_up),
            StopPending(retry_at),
        ]


def _active(request: Request) -> list[str]:
    return [output.generation_id for output in request.outputs if output.generation_id and not output.status.ended]
