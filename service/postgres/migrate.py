"""Numbered SQL files, applied in order under an advisory lock: all that are missing, or none of them.

A library would bring a second driver or an ORM for what is one loop here (yoyo needs psycopg, Alembic SQLAlchemy).
From the first release on migrations are additive: the code before and the code after each of them can live with the
schema. (0006 is not; it came before.)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from service.domain.errors import ConfigurationError, StatementError
from service.postgres.database import Database

FILE = re.compile(r"(\d{4})_(\w+)\.sql")
LOCK = 0x64726F76  # "drov"
INSUFFICIENT_PRIVILEGE = "42501"  # an SQLSTATE
CREATE = """
create table if not exists schema_migrations (
    version integer primary key, name text not null, checksum text not null, applied_at timestamptz not null
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; the checksum shows later whether it was changed after it had been applied."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def available() -> list[Migration]:
    """The migrations that come with this version, in order."""
    found = [
        Migration(int(match[1]), match[2], entry.read_text("utf-8"))
        for entry in files("service.postgres").joinpath("migrations").iterdir()
        if (match := FILE.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


async def apply_migrations(database: Database) -> list[Migration]:
    """Applies what is missing; several replicas may call it at once. Answers what this call applied."""
    try:
        return await _apply_missing(database)
    except StatementError as error:
        if error.code != INSUFFICIENT_PRIVILEGE:
            raise
        raise ConfigurationError(
            "The user of DROVER_DATABASE_URL may not create the tables; grant it create on the schema, or run "
            "`drover migrate` as a user who may."
        ) from error


async def _apply_missing(database: Database) -> list[Migration]:
    async with database.connection("migrating") as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(CREATE)
        missing = await _missing(connection)
        for migration in missing:
            await connection.execute(migration.sql, timeout=300)
            await connection.execute(
                "insert into schema_migrations (version, name, checksum, applied_at) values ($1, $2, $3, now())",
                migration.version,
                migration.name,
                migration.checksum,
            )
        return missing


async def check_migrations(database: Database) -> None:
    """Raises ConfigurationError unless every migration of this version is applied."""
    async with database.connection("checking the migrations") as connection:
        try:
            missing = await _missing(connection)
        except asyncpg.UndefinedTableError:
            missing = available()
    if missing:
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
        raise ConfigurationError(f"The database lacks {names}; run `drover migrate`, or set DROVER_MIGRATE_ON_START.")


async def _missing(connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> list[Migration]:
    rows = await connection.fetch("select version, checksum from schema_migrations")
    applied = {row["version"]: row["checksum"] for row in rows}
    for migration in available():
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise ConfigurationError(
                f"Migration {migration.version:04d}_{migration.name} was changed after it had been applied; "
                "restore the file and add a new migration instead."
            )
    return [migration for migration in available() if migration.version not in applied]
