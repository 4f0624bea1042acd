"""The database at the start of a replica: waited for when it is away, or lacks a migration; migrated where it may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from service.domain.errors import DatabaseUnavailableError, StatementError
from service.domain.retry import Backoff
from service.postgres.database import Database
from service.postgres.migrate import INSUFFICIENT_PRIVILEGE, apply_migrations, find_missing
from service.postgres.schema import Migration, titles

log = structlog.get_logger(__name__)
BACKOFF = Backoff(first=0.5, limit=10)
LOOK_S = 1.0
UNGRANTED = (
    "The user of DROVER_DATABASE_URL may not read schema_migrations; grant it what it needs, as "
    "deploy/postgres/roles.sql does. It is waited for."
)
REMEDY = "run `drover migrate` of this version"


class DatabaseStart:
    """Opens the database once it has the schema that this version needs; until then nothing can be asked of it."""

    def __init__(self, database: Database, *, migrate: bool, migrations: Sequence[Migration] | None = None) -> None:
        self._database = database
        self._migrate = migrate
        self._migrations = migrations
        self.fault: str | None = None  # of the schema: what is waited for, and what to do

    async def run(self) -> None:
        """Until the database can be worked with. ConfigurationError for what waiting does not mend."""
        failures = 0
        while True:
            try:
                await self._database.open()
                told, self.fault = self.fault, await self._schema_fault()
            except DatabaseUnavailableError as error:
                failures += 1
                log.warning("database.not_reached", reason=str(error), failures=failures)
                told = self.fault = None
            else:
                failures = 0
                if self.fault is None:
                    return
                if self.fault != told:
                    log.warning("migration.awaited", reason=self.fault)
            await self._database.close()
            await asyncio.sleep(BACKOFF.jittered(failures) if failures else LOOK_S)

    async def _schema_fault(self) -> str | None:
        if self._migrate:
            await apply_migrations(self._database, self._migrations)
            return None
        try:
            lacks = await find_missing(self._database, self._migrations)
        except StatementError as error:  # between the first migration and the grants that follow it
            if error.code != INSUFFICIENT_PRIVILEGE:
                raise
            return UNGRANTED
        needed = [migration for migration in lacks if migration.needed]
        if needed:
            return f"The database lacks {titles(needed)}; {REMEDY}. It is waited for."
        if lacks:
            log.warning("migration.left_out", migrations=titles(lacks), remedy=REMEDY)
        return None
