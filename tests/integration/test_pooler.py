"""PgBouncer before the database: in session mode drover works, in transaction mode doctor says why it does not."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from service.cli.doctor.database import IGNORED
from service.postgres.database import SESSION, Database
from service.postgres.notifications import Notifications
from service.postgres.outbox import CHANNEL
from service.sandbox import Sandbox
from tests.support.bus import Team, name_of
from tests.support.command import drover
from tests.support.pooler import pooled
from tests.support.replica import environment, running

pytestmark = pytest.mark.asyncio
DROPPED = [name for name in SESSION if name in IGNORED]


async def said_of_the_pooler(amqp_url: str, database_url: str, hub: Sandbox) -> dict[str, str]:
    """The check that is about it; empty without one."""
    _, out, _ = await drover("doctor", "--json", **environment(amqp_url, database_url, hub.url))
    found: list[dict[str, str]] = [one for one in json.loads(out)["checks"] if one["name"] == "database.pooler"]
    return found[0] if found else {}


async def test_behind_a_pooler_in_session_mode_everything_works(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    with pooled(database_url, "session", ignored=IGNORED) as url:
        variables = environment(amqp_url, url, hub.url)
        async with running(variables), running(variables), Team(amqp_url) as team:
            await team.send_many([{"request_id": f"r{n}", "input": {"prompt": f"{n}"}} for n in range(50)])
            await team.wait_for(lambda heard: sum(name_of(event) == "succeeded" for event in heard.events) == 50)


async def test_behind_a_pooler_in_session_mode_notifications_arrive(database_url: str) -> None:
    with pooled(database_url, "session", ignored=IGNORED) as url:
        database, woken = Database(url, size=1), asyncio.Event()
        await database.open()
        listening = asyncio.create_task(Notifications(database, {CHANNEL: woken}).run())
        direct = await asyncpg.connect(database_url)
        try:
            async with asyncio.timeout(10):
                await woken.wait()  # it listens
                woken.clear()
                await direct.execute(f"notify {CHANNEL}")
                await woken.wait()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await direct.close()
            await database.close()


async def test_doctor_tells_which_settings_a_pooler_drops_and_is_content_when_the_role_has_them(
    amqp_url: str, own_database_url: str, hub: Sandbox
) -> None:
    with pooled(own_database_url, "session", ignored=IGNORED) as url:
        check = await said_of_the_pooler(amqp_url, url, hub)
        assert check["level"] == "warning"
        assert all(name in check["found"] for name in DROPPED if name != "jit")  # the local stack has it off anyway
        assert "alter role" in check["remedy"]
    direct = await asyncpg.connect(own_database_url)
    here = await direct.fetchval("select quote_ident(current_database())")
    for name in DROPPED:  # in this database alone: the role is everybody's
        await direct.execute(f"alter role current_user in database {here} set {name} = '{SESSION[name]}'")
    await direct.close()
    with pooled(own_database_url, "session", ignored=IGNORED) as url:
        assert await said_of_the_pooler(amqp_url, url, hub) == {}


async def test_doctor_tells_a_pooler_in_transaction_mode(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    with pooled(database_url, "transaction", ignored=IGNORED) as url:
        check = await said_of_the_pooler(amqp_url, url, hub)
    assert check["level"] == "fault"
    assert "pool_mode = session" in check["remedy"]


async def test_doctor_tells_a_pooler_that_refuses_the_settings_of_a_session(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    with pooled(database_url, "session") as url:
        check = await said_of_the_pooler(amqp_url, url, hub)
    assert check["level"] == "fault"
    assert "unsupported startup parameter" in check["found"]
    assert IGNORED in check["remedy"]


async def test_doctor_says_nothing_of_a_pooler_where_there_is_none(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    assert await said_of_the_pooler(amqp_url, database_url, hub) == {}
