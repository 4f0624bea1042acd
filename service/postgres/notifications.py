"""LISTEN on a connection of its own: wakes the relay when another replica has stored events.

A hint only. The connection is probed, since a dead one says nothing; and a lost hint costs a second (see the pulse).
"""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import structlog

from service.domain.errors import DatabaseUnavailableError
from service.domain.retry import Backoff
from service.postgres.database import Database
from service.postgres.outbox import CHANNEL

log = structlog.get_logger(__name__)
PROBE_S = 15.0


class OutboxNotifications:
    """Sets `wake` at each notification; runs in the leading replica."""

    name = "notifications"

    def __init__(self, database: Database, wake: asyncio.Event) -> None:
        self._database = database
        self._wake = wake
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
            await connection.add_listener(CHANNEL, self._on_notification)
            self._wake.set()  # what was notified before this is looked at now
            self._failures = 0
            while True:
                await asyncio.sleep(PROBE_S)
                await connection.fetchval("select 1", timeout=5)
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    def _on_notification(self, *_: object) -> None:
        self._wake.set()
