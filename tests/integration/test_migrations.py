"""Migrations on a real server: applied once, by whoever comes first, and never silently changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.clock import utc_now
from service.domain.errors import ConfigurationError
from service.domain.states import OutputStatus, RequestState
from service.postgres.database import Database
from service.postgres.migrate import apply_migrations, available, check_migrations
from service.postgres.outbox import Outbox
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


async def test_what_was_still_to_be_published_is_so_after_the_outbox_was_divided(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await opened(empty)
    with monkeypatch.context() as before:
        before.setattr("service.postgres.migrate.available", lambda: available()[:5])
        await apply_migrations(database)
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
