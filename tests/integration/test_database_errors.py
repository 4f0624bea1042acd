"""What the driver raises comes out as one of ours, with a sentence that helps and no secret in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from service.domain.errors import ConfigurationError, DatabaseUnavailableError
from service.postgres.database import Database
from service.postgres.notifications import Notifications
from service.postgres.outbox import CHANNEL, Outbox
from service.postgres.store import RequestStore
from tests.integration.builders import Sql, as_user, stored
from tests.support.raw import raw_server, silent
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio


@pytest.fixture
def database_url(own_database_url: str) -> str:
    """These tests change more than rows."""
    return own_database_url


PASSWORD = "a-secret-that-must-not-show"
CANCEL_BLOCKED = """
select bool_or(pg_cancel_backend(pid)) from pg_stat_activity
where datname = current_database() and pg_backend_pid() = any(pg_blocking_pids(pid))
"""
KILL = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> $1"


def name_of(url: str) -> str:
    """The database's name."""
    return urlsplit(url).path[1:]


@pytest_asyncio.fixture
async def own_pid(sql: Sql) -> AsyncIterator[int]:
    """The process of the plain connection, which is spared."""
    yield await sql.fetchval("select pg_backend_pid()")


async def test_a_server_that_is_away_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        database = Database(f"postgresql://u:{PASSWORD}@127.0.0.1:{taken.getsockname()[1]}/d", timeout_s=2)
        with pytest.raises(DatabaseUnavailableError) as raised:
            await database.open()
    assert PASSWORD not in str(raised.value)


async def test_a_server_that_never_answers_is_unavailable_after_the_timeout() -> None:
    async with raw_server(silent) as server:
        with pytest.raises(DatabaseUnavailableError):
            await Database(f"postgresql://u@127.0.0.1:{server.port}/d?sslmode=disable", timeout_s=0.3).open()


@pytest.mark.parametrize("wrong", ["database", "password"])
async def test_a_wrong_setting_is_one_clear_sentence_without_the_password(database_url: str, wrong: str) -> None:
    user = urlsplit(database_url).username or ""
    url = database_url + "_missing" if wrong == "database" else as_user(database_url, user, PASSWORD)
    with pytest.raises(ConfigurationError, match="DROVER_DATABASE_URL") as raised:
        await Database(url).open()
    told = str(raised.value)
    assert PASSWORD not in told
    assert (urlsplit(database_url).password or PASSWORD) not in told
    assert "\n" not in told


async def test_a_pool_that_is_not_open_is_unavailable(database_url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="not connected"):
        await RequestStore(Database(database_url)).known([])


async def test_a_refusal_of_what_was_right_when_it_was_opened_is_waited_out(database_url: str, sql: Sql) -> None:
    """While a password is changed, the workers must not take every message at hand for the one at fault."""
    role = f"role_{uuid4().hex[:12]}"
    await sql.execute(f"create role {role} login password '{PASSWORD}'")
    await sql.execute(f"grant select on requests to {role}")
    database = Database(as_user(database_url, role, PASSWORD), size=2)
    try:
        await database.open()
        await sql.execute(f"alter role {role} password 'another'")
        await sql.fetch("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)
        with pytest.raises(DatabaseUnavailableError):
            await database.fetch("known_requests", [])  # by the connection that was ended
        with pytest.raises(DatabaseUnavailableError, match="DROVER_DATABASE_URL"):
            await database.fetch("known_requests", [])  # by a new one
        await sql.execute(f"alter role {role} password '{PASSWORD}'")
        assert await database.fetch("known_requests", []) == []
    finally:
        await database.close()
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_a_database_that_is_closed_to_connections_for_a_while_is_unavailable(
    database: Database, database_url: str, servers: Servers, sql: Sql, own_pid: int
) -> None:
    await servers._administer(f"alter database {name_of(database_url)} allow_connections false")
    await sql.fetch(KILL, own_pid)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            await database.fetch("known_requests", [])
    await servers._administer(f"alter database {name_of(database_url)} allow_connections true")
    assert await database.fetch("known_requests", []) == []


async def test_readiness_sees_a_database_that_takes_no_writes_although_it_answers(
    database: Database, database_url: str, servers: Servers, sql: Sql, own_pid: int
) -> None:
    await database.check_writable()
    await servers._administer(f"alter database {name_of(database_url)} set default_transaction_read_only = on")
    await sql.fetch(KILL, own_pid)
    await _until_new_connection(database)
    with pytest.raises(DatabaseUnavailableError, match="takes no writes"):
        await database.check_writable()


async def _until_new_connection(database: Database) -> None:
    """The first use of a connection that was ended says so; the next one has a new connection."""
    try:
        await database.fetch("known_requests", [])
    except DatabaseUnavailableError:
        await database.fetch("known_requests", [])


async def test_a_write_that_is_refused_as_read_only_is_unavailable_and_renews_the_pool(
    database: Database, store: RequestStore, database_url: str, servers: Servers, sql: Sql, own_pid: int
) -> None:
    await servers._administer(f"alter database {name_of(database_url)} set default_transaction_read_only = on")
    await sql.fetch(KILL, own_pid)
    await _until_new_connection(database)
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        await stored(store, "r-1")
    await servers._administer(f"alter database {name_of(database_url)} reset default_transaction_read_only")
    # The refused connections would go on refusing; the pool has let them go.
    assert await stored(store, "r-1") == {"r-1"}
    await database.check_writable()


async def test_connections_that_the_server_ended_are_replaced(
    database: Database, store: RequestStore, sql: Sql, own_pid: int
) -> None:
    await asyncio.gather(*(store.known([]) for _ in range(12)))
    await sql.fetch(KILL, own_pid)
    answers = await asyncio.gather(*(store.known([]) for _ in range(24)), return_exceptions=True)
    assert all(isinstance(answer, set | DatabaseUnavailableError) for answer in answers)
    await database.check_writable()
    assert await stored(store, "r-1") == {"r-1"}


async def test_a_statement_that_is_cut_off_by_the_server_is_unavailable_and_no_defect(
    database: Database, sql: Sql
) -> None:
    async with sql.transaction():
        await sql.execute("lock table requests in access exclusive mode")
        waiting = asyncio.create_task(database.fetch("known_requests", ["r-1"]))
        while not await sql.fetchval(CANCEL_BLOCKED):
            await asyncio.sleep(0.01)
        with pytest.raises(DatabaseUnavailableError, match="known_requests"):
            await waiting


async def test_a_statement_that_takes_too_long_is_unavailable_and_names_what_it_cut(
    database_url: str, sql: Sql
) -> None:
    database = Database(database_url, timeout_s=0.3)
    await database.open()
    async with sql.transaction():
        await sql.execute("lock table requests in access exclusive mode")
        with pytest.raises(DatabaseUnavailableError, match="known_requests"):
            await database.fetch("known_requests", ["r-1"])
    assert await database.fetch("known_requests", ["r-1"]) == []
    await database.close()


async def test_a_statement_prepared_before_a_migration_works_after_it(database: Database, sql: Sql) -> None:
    await database.fetch("known_requests", ["r-1"])
    await asyncio.gather(*(database.fetch("known_requests", ["r-1"]) for _ in range(12)))
    await sql.execute("alter table requests alter column request_id type varchar(128)")
    assert await asyncio.gather(*(database.fetch("known_requests", ["r-1"]) for _ in range(12))) == [[]] * 12


async def test_a_notification_of_another_replica_wakes_the_relay_also_after_its_connection_was_lost(
    database: Database, outbox: Outbox, sql: Sql
) -> None:
    wake = asyncio.Event()
    listening = asyncio.create_task(Notifications(database, {CHANNEL: wake}).run())
    try:
        await asyncio.wait_for(wake.wait(), 5)  # set once it listens
        wake.clear()
        await outbox.notify()
        await asyncio.wait_for(wake.wait(), 5)
    finally:
        listening.cancel()
    assert await sql.fetchval("select 1") == 1


async def test_who_waits_for_a_connection_gets_the_next_one_that_is_free(database_url: str) -> None:
    database = Database(database_url, size=2, timeout_s=5)
    await database.open()
    async with asyncio.timeout(5):
        for _ in range(20):
            await asyncio.gather(*(database.fetch("known_requests", ["r"]) for _ in range(7)))
    await database.close()


async def test_a_statement_under_way_while_the_database_is_closed_gives_its_connection_back(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    async with database.connection("a long look") as connection:
        closing = asyncio.create_task(database.close())
        assert await connection.fetchval("select 1 from pg_sleep(0.1)") == 1
    await closing
    assert database._at_hand == []
