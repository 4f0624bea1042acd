"""The database at the start of a replica: waited for when it is away, migrated or checked when it is there."""

from __future__ import annotations

import asyncio

import structlog

from service.domain.errors import DatabaseUnavailableError
from service.domain.retry import Backoff
from service.postgres.database import Database
from service.postgres.migrate import apply_migrations, check_migrations

log = structlog.get_logger(__name__)
BACKOFF = Backoff(first=0.5, limit=10)


async def open_migrated(database: Database, *, migrate: bool) -> None:
    """Waits for a database that is away (a pod may start before it), not for one that is wrong: ConfigurationError."""
    failures = 0
    while True:
        try:
            await database.open()
            if migrate:
                for migration in await apply_migrations(database):
                    log.info("migration.applied", version=migration.version, name=migration.name)
            else:
                await check_migrations(database)
        except DatabaseUnavailableError as error:
            failures += 1
            log.warning("database.not_reached", reason=str(error), failures=failures)
            await database.close()
            await asyncio.sleep(BACKOFF.jittered(failures))
        else:
            return
