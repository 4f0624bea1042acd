"""The database at the start of a replica: waited for when it is away, or lacks a migration; migrated where it may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from service.domain.errors import DatabaseUnavailableError
from service.domain.retry import Backoff
from service.postgres.database import Database
from service.postgres.migrate import apply_migrations, find_missing
from service.postgres.schema import Migration, titles

log = structlog.get_logger(__name__)
BACKOFF = Backoff(first=0.5, limit=10)
LOOK_S = 1.0


class DatabaseStart:
    """Opens the database and sees that it has the schema that this version needs."""

    def __init__(self, database: Database, *, migrate: bool, migrations: Sequence[Migration] | None = None) -> None:
        self._database = database
        self._migrate = migrate
        self._migrations = migrations
        self.fault: str | None = None  # what the start waits for and what to do, while the database is there

    async def run(self) -> None:
        """Until the database can be worked with. ConfigurationError for what waiting does not mend."""
        failures = 0
        while True:
            try:
                await self._database.open()
                await (self._apply() if self._migrate else self._wait())
            except DatabaseUnavailableError as error:
                failures += 1
                log.warning("database.not_reached", reason=str(error), failures=failures)
                await self._database.close()
                await asyncio.sleep(BACKOFF.jittered(failures))
            else:
                self.fault = None
                return

    async def _apply(self) -> None:
        self.fault = "The migrations are being applied."
        await apply_migrations(self._database, self._migrations)

    async def _wait(self) -> None:
        told = ""
        while True:
            lacks = await find_missing(self._database, self._migrations)
            needed = [migration for migration in lacks if migration.needed]
            if not needed:
                break
            self.fault = f"The database lacks {titles(needed)}; run `drover migrate` of this version. It is waited for."
            if self.fault != told:
                log.warning("migration.awaited", migrations=titles(needed), remedy="run `drover migrate`")
                told = self.fault
            await asyncio.sleep(LOOK_S)
        if lacks:
            log.warning("migration.left_out", migrations=titles(lacks), remedy="run `drover migrate`")
