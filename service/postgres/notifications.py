"""LISTEN on a connection of its own: another replica has stored events, or has given the lease back.

Hints only. The connection is probed, since a dead one says nothing; and behind each hint there is a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import asyncpg
import structlog

from service.domain.errors import DatabaseUnavailableError
from service.domain.retry import Backoff
from service.postgres.database import Database

log = structlog.get_logger(__name__)
PROBE_S = 15.0


class Notifications:
    """Sets the event of each channel on which something is notified. `wakes`: channel to event."""

    name = "notifications"

    def __init__(self, database: Database, wakes: Mapping[str, asyncio.Event]) -> None:
        self._database = database
        self._wakes = wakes
        self._failures = 0

    async def run(self) -> None:
        """Listens, again and again, until cancelled."""
        backoff = Backoff(first=0.5, limit=15)
        while True:
            try:
                await self._listen()
            except (
                DatabaseUnavailableError,
                OSError,
                TimeoutError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
            ) as error:
                self._failures += 1
                log.warning("notifications.lost", reason=str(error) or type(error).__name__)
                await asyncio.sleep(backoff.jittered(self._failures))

    async def drain(self) -> None:
        """Nothing is held here."""

    async def _listen(self) -> None:
        connection = await self._database.dedicated()
        try:
            for channel, wake in self._wakes.items():
                await connection.add_listener(channel, self._on_notification)
                wake.set()  # what was notified before this is looked at now
            self._failures = 0
            while True:
                await asyncio.sleep(PROBE_S)
                await connection.fetchval("select 1", timeout=5)
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    def _on_notification(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._wakes[channel].set()
