"""Applies migrations one by one, each in its own commit, by whoever comes first; safe beside replicas at work.

A library would bring a second driver or an ORM for what is one loop here (yoyo needs psycopg, Alembic SQLAlchemy).

A statement that waits for a lock makes everything queue behind it, so it waits a second at most and comes again. The
lock against others who migrate belongs to the session and is tried for, not waited for: `create index concurrently`
waits for every statement that runs, and would wait for those who wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import asyncpg
import structlog

from service.domain.errors import ConfigurationError, DatabaseUnavailableError, StatementError
from service.domain.retry import Backoff
from service.postgres.database import Database
from service.postgres.schema import Migration, available, missing, titles

log = structlog.get_logger(__name__)
LOCK = 0x64726F76  # "drov"
LOOK_S, ALONE_S = 0.2, 900.0  # how often, and for how long, it is looked whether nobody else migrates
LOCK_TIMEOUT_S, LOCK_TRIES = 1.0, 20  # about two and a half minutes with the waits between
BACKOFF = Backoff(first=0.5, limit=10)
STATEMENT_S, INDEX_S = 300.0, 3600.0
SESSION = {"idle_session_timeout": "30s"}  # of a process that freezes: the others must not wait for it
INSUFFICIENT_PRIVILEGE = "42501"  # an SQLSTATE
CREATE = """
create table if not exists schema_migrations (
    version integer primary key, name text not null, checksum text not null, applied_at timestamptz not null
)
"""
VALID = "select indisvalid from pg_index where indexrelid = to_regclass($1)"


async def apply_migrations(database: Database, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Applies what is missing; several processes may call it at once. Answers what this call applied.

    ConfigurationError; DatabaseUnavailableError also when locks are not to be had.
    """
    try:
        return await _apply_missing(database, available() if migrations is None else migrations)
    except StatementError as error:
        if error.code != INSUFFICIENT_PRIVILEGE:
            raise
        raise ConfigurationError(
            "The user of DROVER_DATABASE_URL may not create the tables; grant it create on the schema, or run "
            "`drover migrate` as a user who may."
        ) from error


async def find_missing(database: Database, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """What the database lacks. ConfigurationError when a migration was changed after it had been applied."""
    wanted = available() if migrations is None else migrations
    async with database.connection("checking the migrations") as connection:
        try:
            return missing(wanted, await _applied(connection))
        except asyncpg.UndefinedTableError:
            return list(wanted)


async def check_migrations(database: Database) -> None:
    """Raises ConfigurationError unless every migration that this version needs is applied."""
    lacks = [migration for migration in await find_missing(database) if migration.needed]
    if lacks:
        raise ConfigurationError(
            f"The database lacks {titles(lacks)}; run `drover migrate`, or set DROVER_MIGRATE_ON_START."
        )


async def _apply_missing(database: Database, migrations: Sequence[Migration]) -> list[Migration]:
    done = []
    async with database.session("migrating", SESSION) as connection:
        await _until_alone(connection)
        await connection.execute(CREATE)
        for migration in missing(migrations, await _applied(connection)):
            await _apply(connection, migration)
            log.info("migration.applied", version=migration.version, name=migration.name)
            done.append(migration)
    return done


async def _until_alone(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    until = time.monotonic() + ALONE_S
    while not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        if time.monotonic() > until:
            raise DatabaseUnavailableError(
                f"Somebody else has been migrating for {ALONE_S:g} s; find the session that holds the advisory lock "
                "in pg_locks."
            )
        await asyncio.sleep(LOOK_S)


async def _apply(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    step = _in_a_transaction if migration.transactional else _outside_a_transaction
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            return await step(connection, migration)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            log.warning("migration.delayed", version=migration.version, name=migration.name, reason=str(error))
            await asyncio.sleep(BACKOFF.jittered(attempt))
    raise DatabaseUnavailableError(
        f"Migration {migration.title} did not get its locks in {LOCK_TRIES} tries of {LOCK_TIMEOUT_S:g} s: a long "
        "transaction holds them, such as a backup (see pg_locks). Let it end, and run `drover migrate` again."
    )


async def _in_a_transaction(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S:g}s'")
        await connection.execute(migration.sql, timeout=STATEMENT_S)
        await _note(connection, migration)


async def _outside_a_transaction(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    """Makes or drops its index, whatever an attempt before has left. Nobody waits for these, so they may wait."""
    name, made = migration.index
    valid = await connection.fetchval(VALID, name)
    if made and valid is False:
        await connection.execute(f'drop index concurrently "{name}"', timeout=INDEX_S)
        valid = None
    if made == (valid is None):
        await connection.execute(migration.sql, timeout=INDEX_S)
    await _note(connection, migration)


async def _note(connection: asyncpg.Connection[asyncpg.Record], migration: Migration) -> None:
    await connection.execute(
        "insert into schema_migrations (version, name, checksum, applied_at) values ($1, $2, $3, now())",
        migration.version,
        migration.name,
        migration.checksum,
    )


async def _applied(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record],
) -> dict[int, str]:
    rows = await connection.fetch("select version, checksum from schema_migrations")
    return {row["version"]: row["checksum"] for row in rows}
