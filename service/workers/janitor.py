"""Deletes what is past its time, in small steps."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from service.clock import utc_now
from service.domain.errors import TransientError
from service.workers.ports import Store

log = structlog.get_logger(__name__)
STEP = 1000
ORPHAN_AGE = timedelta(hours=1)
EARLY_CANCEL_AGE = timedelta(hours=24)


class Janitor:
    """Runs while this replica leads."""

    name = "janitor"

    def __init__(self, store: Store, *, retention: timedelta, interval_s: float = 60.0) -> None:
        self._store = store
        self._retention = retention
        self._interval_s = interval_s

    async def run(self) -> None:
        """Cleans at an interval until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.clean(utc_now())
            except TransientError as error:
                log.warning("janitor.delayed", reason=str(error))

    async def clean(self, now: datetime) -> None:
        """Everything that is old, in bounded steps: what is made faster than one step an interval must go as fast."""
        await self._delete("delete_ended_requests", now - self._retention)
        await self._delete("delete_old_answers", now - self._retention)
        await self._delete("delete_old_orphans", now - ORPHAN_AGE)
        await self._delete("delete_old_cancels", now - EARLY_CANCEL_AGE)

    async def _delete(self, statement: str, before: datetime) -> None:
        while await self._store.delete_old(statement, before, STEP) >= STEP:
            pass

    async def drain(self) -> None:
        """Nothing is held here."""
