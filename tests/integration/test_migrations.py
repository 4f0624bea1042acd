"""Migrations on a real server: applied once, by whoever comes first, and never silently changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
import structlog

from service.clock import utc_now
from service.domain.errors import ConfigurationError, DatabaseUnavailableError, StatementError
from service.domain.states import OutputStatus, RequestState
from service.postgres import migrate
from service.postgres.database import Database
from service.postgres.migrate import LOCK, apply_migrations, check_migrations, find_missing
from service.postgres.outbox import Outbox
from service.postgres.schema import Migration, available
from service.postgres.startup import DatabaseStart
from service.postgres.statements import statements
from tests.integration.builders import Sql, as_user
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio


@pytest.fixture
def database_url(own_database_url: str) -> str:
    """These tests change more than rows."""
    return own_database_url


EVERYTHING = [migration.version for migration in available()]


@pytest_asyncio.fixture
async def empty(servers: Servers) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    url = await servers.make_database("template0")
    yield url
    await servers.drop_database(url)


async def opened(url: str) -> Database:
    """A pool on it."""
    database = Database(url, size=2)
    await database.open()
    return database


async def test_an_empty_database_is_told_what_it_lacks(empty: str) -> None:
    database = await opened(empty)
    with pytest.raises(ConfigurationError, match=r"lacks 0001_spine.*; run `drover migrate`"):
        await check_migrations(database)
    await database.close()


async def test_what_was_applied_is_not_applied_again(empty: str) -> None:
    database = await opened(empty)
    first = await apply_migrations(database)
    second = await apply_migrations(database)
    await check_migrations(database)
    await database.close()
    assert [migration.version for migration in first] == EVERYTHING
    assert second == []


async def test_of_replicas_that_migrate_at_once_exactly_one_does_it(empty: str) -> None:
    databases = [await opened(empty) for _ in range(5)]
    applied = await asyncio.gather(*(apply_migrations(database) for database in databases))
    for database in databases:
        await database.close()
    assert sorted(len(each) for each in applied) == [0, 0, 0, 0, len(EVERYTHING)]


async def test_what_was_still_to_be_published_is_so_after_the_outbox_was_divided(empty: str) -> None:
    database = await opened(empty)
    await apply_migrations(database, available()[:5])
    async with database.connection("filling it") as connection:
        await connection.execute(
            "insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, failures, "
            "next_attempt_at, published_at) values "
            "(gen_random_uuid(), 'told', 1, true, true, 'k', 'k', 'x', 0, '-infinity', now()),"
            "(gen_random_uuid(), 'due', 1, true, true, 'k', 'k', 'x', 0, '-infinity', null),"
            "(gen_random_uuid(), 'failed', 1, true, true, 'k', 'k', 'x', 3, now() + interval '1 hour', null)"
        )
    await apply_migrations(database)
    outbox, now = Outbox(database), utc_now()
    assert [(row.event.request_id, row.failures) for row in await outbox.due(10, now)] == [("due", 0)]
    later = await outbox.due(10, now + timedelta(hours=2))
    assert [(row.event.request_id, row.failures) for row in later] == [("due", 0), ("failed", 3)]
    await database.close()


async def test_a_migration_that_was_changed_afterwards_is_named(database: Database, sql: Sql) -> None:
    await sql.execute("update schema_migrations set checksum = 'another' where version = 1")
    for judge in (apply_migrations, check_migrations):
        with pytest.raises(ConfigurationError, match="0001_spine was changed after it had been applied"):
            await judge(database)


async def test_a_user_who_may_not_create_tables_is_told_so(empty: str) -> None:
    role = f"role_{uuid4().hex[:12]}"
    administrator = await asyncpg.connect(empty)
    await administrator.execute(f"create role {role} login password '{role}'")
    await administrator.execute("revoke create on schema public from public")
    try:
        database = await opened(as_user(empty, role, role))
        with pytest.raises(ConfigurationError, match="may not create the tables"):
            await apply_migrations(database)
        await database.close()
    finally:
        await administrator.execute(f"drop role {role}")
        await administrator.close()


# -- steps of a rollout, as later versions will bring them ------------------------------------------------------------

COLUMN = Migration(8, "colour", "-- Needed by the next version.\nalter table requests add column colour text;")
INDEX = Migration(
    9, "by_colour", "-- needed: no\n-- transaction: no\ncreate unique index concurrently by_colour on outbox (row_id);"
)
NEXT = [*available(), COLUMN, INDEX]


async def indexes(sql: Sql) -> list[tuple[str, bool]]:
    """The planted indexes, and whether each is valid."""
    rows = await sql.fetch(
        "select relname, indisvalid from pg_index join pg_class on oid = indexrelid where relname ~ '^by_'"
    )
    return [(row["relname"], row["indisvalid"]) for row in rows]


async def test_a_migration_that_does_not_get_its_lock_lets_the_others_by_and_comes_again(
    database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 0.3)
    with structlog.testing.capture_logs() as logged:
        async with sql.transaction():
            await sql.execute("lock table requests in access share mode")  # as a long report, or a backup
            migrating = asyncio.create_task(apply_migrations(database, NEXT))
            async with asyncio.timeout(10):
                while sum(line["event"] == "migration.delayed" for line in logged) < 2:
                    await database.fetch("pending", utc_now())  # does not wait for longer than the migration does
        assert await migrating == [COLUMN, INDEX]
    assert await find_missing(database, NEXT) == []


async def test_one_that_never_gets_its_lock_says_so(
    database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 0.01)
    monkeypatch.setattr(migrate, "LOCK_TRIES", 2)
    async with sql.transaction():
        await sql.execute("lock table requests in access share mode")
        with pytest.raises(DatabaseUnavailableError, match="0008_colour did not get its locks in 2 tries"):
            await apply_migrations(database, NEXT)
    assert await find_missing(database, NEXT) == [COLUMN, INDEX]


async def test_an_index_is_built_beside_replicas_that_migrate_at_once(empty: str) -> None:
    databases = [await opened(empty) for _ in range(4)]
    applied = await asyncio.gather(*(apply_migrations(database, NEXT) for database in databases))
    for database in databases:
        await database.close()
    assert sorted(len(each) for each in applied) == [0, 0, 0, len(NEXT)]


async def test_an_index_that_a_failed_attempt_left_is_dropped_and_built_again(database: Database, sql: Sql) -> None:
    broken = Migration(9, "by_colour", INDEX.sql.replace("(row_id)", "((1))"))
    await sql.execute(
        "insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at) "
        "select gen_random_uuid(), 'r', n, true, false, 'k', 'k', 'x', now() from generate_series(1, 2) n"
    )
    with pytest.raises(StatementError, match="23505"):
        await apply_migrations(database, [*available(), COLUMN, broken])
    assert await indexes(sql) == [("by_colour", False)]
    assert await apply_migrations(database, NEXT) == [INDEX]
    assert await indexes(sql) == [("by_colour", True)]


async def test_an_index_that_was_built_and_not_noted_is_noted(database: Database, sql: Sql) -> None:
    await apply_migrations(database, NEXT)
    await sql.execute("delete from schema_migrations where version = 9")
    assert await apply_migrations(database, NEXT) == [INDEX]
    dropped = Migration(10, "no_colour", "-- needed: no\n-- transaction: no\ndrop index concurrently by_colour;")
    assert await apply_migrations(database, [*NEXT, dropped]) == [dropped]
    await sql.execute("delete from schema_migrations where version = 10")
    assert await apply_migrations(database, [*NEXT, dropped]) == [dropped]
    assert await indexes(sql) == []


async def test_who_dies_while_migrating_leaves_no_lock(database: Database, sql: Sql) -> None:
    async with sql.transaction():
        await sql.execute("lock table requests in access share mode")
        migrating = asyncio.create_task(apply_migrations(database, NEXT))
        async with asyncio.timeout(10):
            while (
                await sql.fetchval("select count(*) from pg_locks where locktype = 'advisory' and objid = $1", LOCK)
                == 0
            ):
                await asyncio.sleep(0.01)  # a lock has no signal
        migrating.cancel()
        await asyncio.wait([migrating])
    async with asyncio.timeout(10):  # before the session is ended for idling
        assert await apply_migrations(database, NEXT) == [COLUMN, INDEX]


async def test_a_start_waits_for_what_it_needs_and_not_for_the_rest(database: Database, database_url: str) -> None:
    starting = Database(database_url, size=2)
    start = DatabaseStart(starting, migrate=False, migrations=NEXT)
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(start.run())
        async with asyncio.timeout(10):
            while not (told := str(start.fault or "")):
                await asyncio.sleep(0.01)
        assert told.startswith("The database lacks 0008_colour; run `drover migrate`")
        with pytest.raises(DatabaseUnavailableError):
            await starting.fetch("pending", utc_now())  # whoever asks all the same is not let in
        await apply_migrations(database, NEXT[:-1])
        await asyncio.wait_for(running, 10)
    await starting.close()
    assert start.fault is None
    warned = [line for line in logged if line["log_level"] == "warning"]
    assert [line["event"] for line in warned] == ["migration.awaited", "migration.left_out"]
    assert (warned[0]["reason"], warned[1]["migrations"]) == (told, "0009_by_colour")


async def test_a_start_waits_for_the_grants_that_follow_the_first_migration(
    database: Database, database_url: str, sql: Sql
) -> None:
    role = f"r{uuid4().hex}"
    await sql.execute(f"create role {role} login password '{role}'")
    starting = Database(as_user(database_url, role, role), size=2)
    start = DatabaseStart(starting, migrate=False)
    running = asyncio.create_task(start.run())
    try:
        async with asyncio.timeout(10):
            while not (told := str(start.fault or "")) and not running.done():
                await asyncio.sleep(0.01)
        assert "deploy/postgres/roles.sql" in told
        await sql.execute(f"grant select on schema_migrations to {role}")
        await asyncio.wait_for(running, 10)
        assert start.fault is None
    finally:
        running.cancel()
        await asyncio.wait([running])
        await starting.close()
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_a_start_does_not_wait_out_a_migration_that_was_changed(
    database: Database, database_url: str, sql: Sql
) -> None:
    await sql.execute("update schema_migrations set checksum = 'another' where version = 1")
    for migrating in (True, False):
        starting = Database(database_url, size=2)
        with pytest.raises(ConfigurationError, match="0001_spine was changed"):
            await DatabaseStart(starting, migrate=migrating).run()
        await starting.close()


@pytest.mark.parametrize(("name", "words"), [("request_state", RequestState), ("output_status", OutputStatus)])
async def test_python_and_postgres_know_the_same_words_in_the_same_order(
    sql: Sql, name: str, words: type[RequestState | OutputStatus]
) -> None:
    rows = await sql.fetch(
        "select enumlabel from pg_enum join pg_type t on t.oid = enumtypid where typname = $1 order by enumsortorder",
        name,
    )
    assert [row["enumlabel"] for row in rows] == [word.value for word in words]


async def test_every_named_statement_prepares_with_its_parameters_typed(sql: Sql) -> None:
    for name, text in statements().items():
        prepared = await sql.prepare(text)
        assert "unknown" not in {parameter.name for parameter in prepared.get_parameters()}, name
