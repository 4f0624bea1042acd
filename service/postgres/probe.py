"""What a database is like, what this user may do in it, and who leads; found out without changing anything."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import asyncpg
from msgspec import Struct

from service.clock import utc_now
from service.domain.errors import ConfigurationError, DatabaseUnavailableError, DroverError, StatementError
from service.postgres.database import POOLED_CODES, SESSION, Database
from service.postgres.schema import available
from service.postgres.statements import statements
from service.tls import TlsFault, tls_fault

PROBE_TIMEOUT_S = 5.0
# What the service does with each table (`deploy/postgres/roles.sql` grants exactly this).
NEEDED = {
    "requests": ("select", "insert", "update", "delete"),
    "outputs": ("select", "insert", "update"),  # deleted with their requests, as the tables' owner
    "outbox": ("select", "insert", "delete"),
    "unpublished": ("select", "insert", "update", "delete"),
    "orphan_events": ("select", "insert", "delete"),
    "early_cancels": ("select", "insert", "delete"),
    "leadership": ("select", "insert", "update"),
    "limits": ("select", "insert", "update"),
}
NO_TABLE, NOT_PERMITTED = "42P01", "42501"  # SQLSTATEs


class Reach(StrEnum):
    """How far a connection came."""

    OPEN = "open"
    NO_ANSWER = "no answer"
    LOGIN_REFUSED = "login refused"
    NO_DATABASE = "no database"
    NOT_PERMITTED = "not permitted"
    WRONG_URL = "wrong url"
    POOLER_REFUSES = "pooler refuses"  # it knows only some of the settings that a session is opened with
    POOLED = "pooled"  # a session is another server process from one transaction to the next


class Lease(Struct, frozen=True):
    """Who leads: `left_s` seconds of the lease are left, by the database's clock; below 0 it has run out."""

    holder: str
    term: int
    left_s: float
    stream_opened_at: datetime | None


class Server(Struct, frozen=True):
    """The server and the user; `ahead_s` is the database's clock against ours, `off_by_s` at the most."""

    version: int  # as Postgres counts: 150003
    version_told: str
    standby: bool
    read_only: bool
    fsync: bool
    synchronous_commit: str
    account: str
    database: str
    schema: str | None
    may_create: bool
    ahead_s: float
    off_by_s: float


class Schema(Struct, frozen=True):
    """Migrations by name: those that are `missing` or `left_out` (this version can do without), were `changed`
    after they were applied, or are `unknown` here."""

    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    latest: str = ""


class DatabaseState(Struct, frozen=True):
    """Everything that was found out; what follows `reach` is empty unless it is OPEN."""

    reach: Reach
    told: str = ""
    server: Server | None = None
    schema: Schema | None = None  # None: it may not be read
    denied: tuple[tuple[str, str], ...] = ()  # (table, privilege)
    lease: Lease | None = None
    tls: TlsFault | None = None
    lost_settings: tuple[str, ...] = ()  # of those that a session is opened with


async def probe_database(dsn: str, lane: str = "default") -> DatabaseState:
    """Connects and looks. DatabaseUnavailableError when the connection is lost on the way; StatementError."""
    database = Database(dsn, size=2, timeout_s=PROBE_TIMEOUT_S)
    try:
        await database.open()
    except DroverError as error:
        late = isinstance(error.__cause__, TimeoutError)
        told = f"no answer within {PROBE_TIMEOUT_S:g} s" if late else str(error)
        return DatabaseState(_reach(error), told, tls=tls_fault(error))
    try:
        if await _pooled(database):
            return DatabaseState(Reach.POOLED)
        server, has_migrations = await _server(database)
        needed = [(table, privilege) for table, privileges in NEEDED.items() for privilege in privileges]
        denied = await database.fetch("missing_privileges", *map(list, zip(*needed, strict=True)))
        settings = await database.fetch("session_settings", list(SESSION))
        return DatabaseState(
            Reach.OPEN,
            "",
            server,
            await _schema(database, has_migrations=has_migrations),
            tuple((row["name"], row["privilege"]) for row in denied),
            await _lease(database, lane),
            lost_settings=tuple(row["name"] for row in settings if row["value"] != SESSION[row["name"]]),
        )
    finally:
        await database.close()


async def _pooled(database: Database) -> bool:
    """Whether a pooler gives out server processes by the transaction: while another session is in one, the process
    that was ours a moment ago is its own, or what was prepared in ours is not in the next."""
    backend = statements()["backend"]
    try:
        async with database.connection("looking for a pooler") as one, database.connection("the same") as other:
            before = await one.fetchval(backend)
            async with other.transaction():
                await other.fetchval(backend)
                after = await one.fetchval(backend)
    except StatementError as error:
        if error.code not in POOLED_CODES:
            raise
        return True
    return bool(before != after)


def _reach(error: DroverError) -> Reach:
    match error:
        case DatabaseUnavailableError(__cause__=asyncpg.ProtocolViolationError()):
            return Reach.POOLER_REFUSES
        case DatabaseUnavailableError():
            return Reach.NO_ANSWER
        case StatementError(code=code):
            return Reach.NOT_PERMITTED if code == NOT_PERMITTED else Reach.NO_ANSWER
    cause = error.__cause__
    if isinstance(cause, asyncpg.InvalidCatalogNameError):
        return Reach.NO_DATABASE
    refused = isinstance(error, ConfigurationError) and isinstance(
        cause, asyncpg.InvalidAuthorizationSpecificationError
    )
    return Reach.LOGIN_REFUSED if refused else Reach.WRONG_URL


async def _server(database: Database) -> tuple[Server, bool]:
    await database.fetch("server_state")  # the second time it is prepared, and takes one way there and back
    asked = utc_now()
    (row,) = await database.fetch("server_state")
    answered = utc_now()
    halfway = asked + (answered - asked) / 2
    server = Server(
        version=row["version"],
        version_told=row["version_told"],
        standby=row["standby"],
        read_only=row["read_only"],
        fsync=row["fsync"],
        synchronous_commit=row["synchronous_commit"],
        account=row["account"],
        database=row["database"],
        schema=row["schema"],
        may_create=row["may_create"],
        ahead_s=(row["now"].astimezone(UTC) - halfway).total_seconds(),
        off_by_s=(answered - asked).total_seconds() / 2,
    )
    return server, row["has_migrations"]


async def _schema(database: Database, *, has_migrations: bool) -> Schema | None:
    applied: dict[int, tuple[str, str]] = {}
    if has_migrations:
        try:
            rows = await database.fetch("applied_migrations")
        except StatementError as error:
            if error.code != NOT_PERMITTED:
                raise
            return None
        applied = {row["version"]: (row["name"], row["checksum"]) for row in rows}
    known = {migration.version: migration for migration in available()}
    named = {version: f"{version:04d}_{name}" for version, (name, _) in applied.items()}
    return Schema(
        missing=tuple(item.title for version, item in known.items() if version not in applied and item.needed),
        left_out=tuple(item.title for version, item in known.items() if version not in applied and not item.needed),
        changed=tuple(
            named[version]
            for version, item in known.items()
            if applied.get(version, ("", item.checksum))[1] != item.checksum
        ),
        unknown=tuple(name for version, name in named.items() if version not in known),
        latest=max(named.items(), default=(0, ""))[1],
    )


async def _lease(database: Database, lane: str) -> Lease | None:
    try:
        rows = await database.fetch("present_lease", lane)
    except StatementError as error:
        if error.code not in (NO_TABLE, NOT_PERMITTED):
            raise
        return None  # told by the migrations, or by the privileges
    for row in rows:
        return Lease(row["holder"], row["term"], row["left_s"], row["stream_opened_at"])
    return None
