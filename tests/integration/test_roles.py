"""The database's roles: as `deploy/postgres/roles.sql` makes them, each may do what it needs and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.postgres.probe import NEEDED
from service.postgres.statements import statements
from service.sandbox import Sandbox
from tests.integration.builders import Sql, as_user
from tests.support.bus import Team, name_of
from tests.support.command import drover
from tests.support.replica import environment, running
from tests.support.servers import REPOSITORY, Servers

pytestmark = pytest.mark.asyncio
ROLES = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text("utf-8")
SCALER = REPOSITORY / "deploy" / "kubernetes" / "components" / "keda" / "scaledobject.yaml"
PASSWORD = "tr0ub4dor"
GRANTS = [(table, privilege) for table, privileges in NEEDED.items() for privilege in privileges]
GRANTS.append(("schema_migrations", "select"))
DDL = [
    "create table mine (a int)",
    "create temporary table mine (a int)",
    "create schema mine",
    "alter table requests add column mine text",
    "drop index requests_due",
    "drop table outbox",
    "truncate requests",
    "insert into schema_migrations values (99, 'x', 'x', now())",
    "update outbox set body = ''",
    "delete from leadership",
]


@dataclass(frozen=True)
class Database:
    """One that was set up as the file says, with a login in each role."""

    prefix: str
    administrator: str
    migrator: str
    runtime: str
    monitor: str


@pytest_asyncio.fixture(scope="module")
async def database(servers: Servers) -> AsyncIterator[Database]:
    """The roles have names of their own: they are the whole server's."""
    prefix = f"t{uuid4().hex[:10]}_"
    roles = ROLES.replace("drover_", prefix)
    await servers._administer(f"create database {prefix}db")
    url = servers.database_url.rpartition("/")[0] + f"/{prefix}db"
    logins = {role: f"{prefix}{role}_login" for role in ("owner", "runtime", "monitor")}
    connection = await asyncpg.connect(url)
    await connection.execute(roles)
    for role, login in logins.items():
        await connection.execute(f"create role {login} login password '{PASSWORD}' in role {prefix}{role}")
    await connection.execute(f"alter role {logins['owner']} set role {prefix}owner")
    urls = [as_user(url, login, PASSWORD) for login in logins.values()]
    code, _, err = await drover("migrate", DROVER_DATABASE_URL=urls[0])
    assert (code, err) == (0, "")
    await connection.execute(roles)
    yield Database(prefix, url, *urls)
    await connection.close()
    await servers._administer(f"drop database {prefix}db with (force)")
    for role in (*logins.values(), *(prefix + role for role in logins)):
        await servers._administer(f"drop role {role}")


@pytest_asyncio.fixture
async def administrator(database: Database) -> AsyncIterator[Sql]:
    """Who may do everything."""
    connection = await asyncpg.connect(database.administrator)
    yield connection
    await connection.close()


async def refused(url: str) -> dict[str, str]:
    """The service's statements that a login may not run, with the table; planned and begun, but not run."""
    connection = await asyncpg.connect(url)
    found = {}
    for name, text in statements().items():
        arguments = ", ".join(["null"] * max((int(n) for n in re.findall(r"\$(\d+)", text)), default=0))
        await connection.execute(f"prepare {name} as {text}")
        try:
            await connection.execute(f"explain execute {name}" + (f" ({arguments})" if arguments else ""))
        except asyncpg.InsufficientPrivilegeError as error:
            found[name] = str(error)
    await connection.close()
    return found


async def test_a_replica_works_as_the_runtime_role_and_so_do_the_commands(
    database: Database, amqp_url: str, hub: Sandbox
) -> None:
    variables = environment(amqp_url, database.runtime, hub.url, DROVER_MIGRATE_ON_START="false")
    async with running(variables), Team(amqp_url) as team:
        await team.cancel({"request_id": "cancelled"})
        await team.send({"request_id": "good", "input": {"prompt": "x"}}, reply_to=team.reply_to)
        await team.send({"request_id": "bad", "input": {"prompt": 5}})
        await team.send({"request_id": "cancelled", "input": {"prompt": "x"}})
        ends = [name_of(await team.end_of(each)) for each in ("good", "bad", "cancelled")]
        assert ends == ["succeeded", "rejected", "cancelled"]
        await team.send({"request_id": "good", "input": {"prompt": "x"}}, reply_to=team.reply_to)
        await team.wait_for(lambda heard: len(heard.replies) == 2)
        code, out, _ = await drover("doctor", "--json", **variables)
        levels = {check["name"]: check["level"] for check in json.loads(out)["checks"]}
        assert (code, levels["database.migrations"]) == (0, "ok")
        assert "database.privileges" not in levels
        assert (await drover("status", "good", **variables))[0] == 0


async def test_the_runtime_role_may_run_every_statement(database: Database) -> None:
    assert await refused(database.runtime) == {}


@pytest.mark.parametrize(("table", "privilege"), GRANTS)
async def test_every_grant_is_needed(database: Database, administrator: Sql, table: str, privilege: str) -> None:
    await administrator.execute(f"revoke {privilege} on {table} from {database.prefix}runtime")
    try:
        found = await refused(database.runtime)
        assert f"permission denied for table {table}" in found.values()
    finally:
        await administrator.execute(f"grant {privilege} on {table} to {database.prefix}runtime")


async def test_the_file_grants_exactly_what_doctor_asks_for(administrator: Sql, database: Database) -> None:
    rows = await administrator.fetch(
        "select table_name, lower(privilege_type) from information_schema.role_table_grants where grantee = $1",
        f"{database.prefix}runtime",
    )
    assert {tuple(row) for row in rows} == set(GRANTS)


@pytest.mark.parametrize("statement", DDL)
async def test_the_runtime_role_may_not_change_the_schema_or_more_than_it_does(
    database: Database, statement: str
) -> None:
    connection = await asyncpg.connect(database.runtime)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


async def test_a_migration_as_the_runtime_role_is_refused_in_one_sentence(database: Database) -> None:
    code, _, err = await drover("migrate", DROVER_DATABASE_URL=database.runtime)
    assert (code, "as a user who may" in err, err.count("\n")) == (2, True, 1), err


async def test_the_monitor_counts_and_sees_no_content(database: Database) -> None:
    connection = await asyncpg.connect(database.monitor)
    for allowed in (
        "select count(*) from requests where coalesce(state, 'accepted') = 'accepted'",
        "select state, source, min(received_at) from requests group by 1, 2",
        "select count(*) from unpublished",
        "select holder, expires_at from leadership",
        *_scalers_queries(SCALER),
    ):
        await connection.fetch(allowed)
    for hidden in ("input, metadata", "correlation_id", "reply_to", "error", "traceparent"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"select {hidden} from requests")  # noqa: S608 - of the line above
    for hidden in (
        "select url from outputs",
        "select error from outputs",
        "select body from outbox",
        "select * from orphan_events",
        "delete from requests",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(hidden)
    await connection.close()


def _scalers_queries(manifest: Path) -> list[str]:
    """What the cluster's autoscaler asks, where there is one."""
    if not manifest.exists():
        return []
    folded = re.findall(r"query: >-\n((?:\s+.*\n)+?)\s+(?:#|\w+:)", manifest.read_text("utf-8"))
    assert folded
    return [" ".join(text.split()) for text in folded]


async def test_nobody_else_is_let_in(database: Database, administrator: Sql) -> None:
    role = f"{database.prefix}stranger"
    await administrator.execute(f"create role {role} login password '{PASSWORD}'")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(as_user(database.administrator, role, PASSWORD))
    finally:
        await administrator.execute(f"drop role {role}")
