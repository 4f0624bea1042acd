"""One pool of connections, and the one place where driver errors become ours."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from service.cancellation import raise_if_cancelled
from service.domain.errors import ConfigurationError, DatabaseUnavailableError, StatementError
from service.postgres.statements import statements
from service.tls import TlsNames, tls_fault

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

# What says "not now": the server is away, restarting, full, or a standby. Everything else is a defect of ours.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that was ended, until the driver has noticed
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting, cancelled by somebody or by a statement_timeout
    asyncpg.PostgresSystemError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a lock_timeout; a database that is closed to connections for a while
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InsufficientResourcesError,
)
WRONG_SETTINGS = (
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ClientConfigurationError,
)
TLS = TlsNames("DROVER_DATABASE_URL", "sslrootcert", ("sslcert", "sslkey"), ("sslcrl",))
# A prepared statement that is not there, or is there already: a pooler has given the session another server process.
POOLED_CODES = ("26000", "42P05")
CONNECTING = "connecting"
GIVING_BACK_S = 2.0  # what was cut off is cancelled at the server first; a silent one must not hold us twice as long
CLOSING_S = 1.0
ROWS_AT_ONCE = 1000  # of a long answer; a millisecond to read
AT_HAND_S = 30.0  # a connection that nobody wanted for so long goes back to the pool, which closes it in time
SESSION = {
    "application_name": "drover",
    "jit": "off",
    # Every statement here has its index. A plan made while a table was empty must not go on reading it whole.
    "enable_seqscan": "off",
    # Every plan is checked as the general one; five of its own for each statement and session first only cost time.
    "plan_cache_mode": "force_generic_plan",
    # A replica that freezes within a transaction must not keep its locks from the others for long.
    "idle_in_transaction_session_timeout": "5s",
}


class Database:
    """A pool that is opened once; `fetch` runs a named statement. Raises DatabaseUnavailableError and nothing else
    that a caller could wait out."""

    def __init__(self, dsn: str, *, size: int = 10, timeout_s: float = 10.0) -> None:
        self._dsn = dsn
        self._size = size
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        # Connections between two statements, the latest last. To give one back to the pool and to take it again costs
        # as much as a small statement.
        self._at_hand: list[tuple[Connection, float]] = []
        self._waiting = 0

    async def open(self) -> None:
        """Connects. ConfigurationError for a wrong database, user or URL; DatabaseUnavailableError when it is away, or
        shows a certificate that is not trusted."""
        if (unreadable := TLS.unreadable(self._dsn)) is not None:
            raise ConfigurationError(unreadable)
        with _translated(CONNECTING):
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._size,
                command_timeout=self._timeout_s,
                timeout=self._timeout_s,
                max_inactive_connection_lifetime=300,
                max_cached_statement_lifetime=0,
                server_settings=SESSION,
                reset=_leave_as_it_is,
            )

    async def close(self) -> None:
        """Closes every connection, at once if they do not close in time."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await self._give_back(pool, everything=True)
                await asyncio.wait_for(pool.close(), CLOSING_S)
            except (TimeoutError, *UNAVAILABLE):
                pool.terminate()

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """Runs a named statement in a commit of its own."""
        async with self.connection(name) as connection:
            try:
                return await connection.fetch(statements()[name], *args)
            except asyncpg.InvalidCachedStatementError:  # once per connection after a migration
                return await connection.fetch(statements()[name], *args)

    async def fetch_after(self, lock: str, lock_args: Sequence[object], name: str, *args: Any) -> list[asyncpg.Record]:
        """Runs the statement `lock` first, in the same transaction: the named one sees all that was committed by
        whoever held that lock before. (Within one statement it would see the tables as they were before the wait.)"""
        async with self.connection(name) as connection:
            try:
                return await self._fetch_after(connection, lock, lock_args, name, *args)
            except asyncpg.InvalidCachedStatementError:  # once per connection after a migration
                return await self._fetch_after(connection, lock, lock_args, name, *args)

    async def _fetch_after(
        self, connection: Connection, lock: str, lock_args: Sequence[object], name: str, *args: object
    ) -> list[asyncpg.Record]:
        async with connection.transaction():
            await self._lock(connection, lock, *lock_args)
            return await connection.fetch(statements()[name], *args)

    async def fetch_in_parts(
        self, name: str, args: Sequence[object], take: Callable[[list[asyncpg.Record]], None]
    ) -> None:
        """Runs a named statement, and hands its rows on while they are read: memory holds a part at a time."""
        async with self.connection(name) as connection, connection.transaction():
            statement = await connection.prepare(statements()[name])  # anew: a cached one may be older than a migration
            cursor = await statement.cursor(*args)
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                take(rows)

    async def _lock(self, connection: Connection, name: str, *args: object) -> None:
        await connection.fetch(statements()[name], *args)

    async def fetchval(self, name: str, *args: Any) -> Any:  # noqa: ANN401 - as the driver types a value
        """The first value of the first row, None without rows."""
        rows = await self.fetch(name, *args)
        return rows[0][0] if rows else None

    async def check_writable(self) -> None:
        """Raises DatabaseUnavailableError unless the server takes writes: a demoted primary still answers SELECT 1."""
        async with self.connection("the readiness check") as connection:
            if await connection.fetchval(
                "select pg_is_in_recovery() or current_setting('transaction_read_only')::bool"
            ):
                raise DatabaseUnavailableError("Postgres answers, but takes no writes (a standby, or read-only).")

    @asynccontextmanager
    async def connection(self, purpose: str) -> AsyncIterator[Connection]:
        """One connection for one short purpose, which names the errors."""
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailableError(f"Postgres is not connected ({purpose}).")
        with _translated(purpose, self):
            connection = await self._take(pool)
            try:
                yield connection
            except BaseException:  # whatever is wrong with it, the pool knows what to do
                await pool.release(connection, timeout=GIVING_BACK_S)
                raise
            self._at_hand.append((connection, time.monotonic()))
            if self._pool is not pool:  # closed meanwhile: it waits for this one
                await self._give_back(pool, everything=True)
            elif self._waiting or time.monotonic() - self._at_hand[0][1] > AT_HAND_S:
                await self._give_back(pool)

    async def _take(self, pool: asyncpg.Pool[asyncpg.Record]) -> Connection:
        while self._at_hand:
            connection, _ = self._at_hand.pop()
            if not connection.is_closed():
                return connection
            await pool.release(connection, timeout=GIVING_BACK_S)
        self._waiting += 1
        try:
            return await pool.acquire(timeout=self._timeout_s)
        finally:
            self._waiting -= 1

    async def _give_back(self, pool: asyncpg.Pool[asyncpg.Record], *, everything: bool = False) -> None:
        """The one that was not used for longest, or all of them."""
        while self._at_hand:
            connection, _ = self._at_hand.pop(0)
            await pool.release(connection, timeout=GIVING_BACK_S)
            if not everything:
                return

    def forget_connections(self) -> None:
        """Each is closed when it is free: the server behind them has changed its part."""
        if (pool := self._pool) is not None:
            asyncio.ensure_future(self._renew(pool))  # noqa: RUF006 - the pool outlives it

    async def _renew(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        with suppress(*UNAVAILABLE):  # the pool may be closing
            await pool.expire_connections()
            await self._give_back(pool, everything=True)

    @asynccontextmanager
    async def session(
        self, purpose: str, settings: Mapping[str, str]
    ) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection outside the pool, for one purpose: what is set and locked in it ends with it."""
        with _translated(purpose, self):
            connection = await asyncpg.connect(
                self._dsn,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                server_settings=SESSION,
            )
            try:
                for name, value in settings.items():  # not with the rest: poolers refuse what they do not know
                    await connection.fetchval("select set_config($1, $2, false)", name, value)
                yield connection
            finally:
                with suppress(*UNAVAILABLE):
                    await connection.close(timeout=CLOSING_S)

    async def dedicated(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, for LISTEN, which a pooled one forgets when it is given back."""
        with _translated("opening the notification connection", self if self._pool is not None else None):
            return await asyncpg.connect(
                self._dsn, timeout=self._timeout_s, command_timeout=self._timeout_s, server_settings=SESSION
            )


async def _leave_as_it_is(_: object) -> None:
    """Nothing in a session is ever changed, so there is nothing to reset: one round trip less a statement."""


class _translated:  # noqa: N801 - reads as a statement: with _translated(...)
    """Turns what the driver raises into DatabaseUnavailableError or ConfigurationError; keeps it as the cause."""

    def __init__(self, purpose: str, database: Database | None = None) -> None:
        self._purpose = purpose
        self._database = database

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            raise_if_cancelled()
        if isinstance(error, WRONG_SETTINGS):
            refusal = f"Postgres refuses the connection ({_refused(error)}); check DROVER_DATABASE_URL."
            if self._database is None:
                raise ConfigurationError(refusal) from error
            # The settings were right once: somebody changes a password or restores the database. To be waited out, or
            # the workers would take every message at hand for the one that is at fault.
            raise DatabaseUnavailableError(refusal) from error
        untrusted = isinstance(error, ssl.SSLCertVerificationError)  # a ValueError, too
        if isinstance(error, UNAVAILABLE) and (untrusted or not isinstance(error, ValueError)):
            self._raise_unavailable(error)
        if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
            # Its text may quote a row: the class and the code say enough, and no prompt gets into a log.
            code = getattr(error, "sqlstate", None) or type(error).__name__
            hint = "; a pooler in transaction mode? See `drover doctor`" if code in POOLED_CODES else ""
            raise StatementError(f"Postgres refused a statement ({self._purpose}): {code}{hint}", code) from None

    def _raise_unavailable(self, error: BaseException) -> None:
        # Giving a connection back to a silent server ends in a TimeoutError that hides the cancellation.
        raise_if_cancelled(error)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and self._database is not None:
            self._database.forget_connections()
        told = str(error) or type(error).__name__
        if (fault := tls_fault(error)) is not None:
            told = f"Postgres could not be reached: {fault}; {TLS.remedy(fault)}."
            raise DatabaseUnavailableError(told) from error
        if self._purpose == CONNECTING:
            told = f"Postgres could not be reached ({told}); check that it runs, and DROVER_DATABASE_URL."
            raise DatabaseUnavailableError(told) from error
        raise DatabaseUnavailableError(f"Postgres did not do it ({self._purpose}): {told}") from error


def _refused(error: BaseException) -> str:
    match error:
        case asyncpg.InvalidCatalogNameError():
            return "there is no such database"
        case asyncpg.ClientConfigurationError():
            wants_ca = "root certificate" in str(error)
            return "sslmode wants a CA: name its file as sslrootcert=" if wants_ca else "a parameter of its URL"
        case asyncpg.InvalidPasswordError():
            return "user or password"
    # By pg_hba.conf. Its text names addresses, and the languages of servers differ: it is not passed on.
    return (
        "user or password; or pg_hba.conf wants TLS, sslmode=verify-full, or a client certificate, sslcert= and sslkey="
    )
