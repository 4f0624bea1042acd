"""`drover doctor` against real servers: it names the fault and the remedy of each, and changes nothing by looking."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from service.rabbit.connection import Link
from service.rabbit.topology import CANCELS, DEAD, QUEUES, REQUESTS, declare
from service.sandbox import Faults, Sandbox
from tests.integration.builders import as_user
from tests.support.command import drover
from tests.support.replica import environment, running
from tests.support.servers import Servers
from tests.support.sql import connected

pytestmark = pytest.mark.asyncio
PASSWORD = "tr0ub4dor"
Checks = dict[str, dict[str, str]]


@pytest_asyncio.fixture
async def declared(amqp_url: str) -> AsyncIterator[Link]:
    """The topology, and nobody who consumes."""
    link = await Link.open(amqp_url, "test")
    await declare(await link.channel(confirms=False))
    yield link
    await link.close()


@pytest_asyncio.fixture
async def stranger(servers: Servers, amqp_url: str) -> AsyncIterator[str]:
    """The same vhost for a user who has no permissions at all."""
    name = f"stranger-{uuid4().hex[:12]}"
    body = json.dumps({"password": PASSWORD, "tags": ""}).encode()
    await servers.manage("PUT", f"/api/users/{name}", body)
    yield as_user(amqp_url, name, PASSWORD)
    await servers.manage("DELETE", f"/api/users/{name}")


async def examined(variables: dict[str, str], code: int = 1) -> Checks:
    """What doctor says, by the names of the checks; all of it has a remedy, and nothing of it is secret."""
    ended, out, err = await drover("doctor", "--json", **variables)
    assert (ended, err) == (code, ""), out + err
    assert PASSWORD not in out
    document = json.loads(out)
    assert document["ok"] is (code == 0)
    checks = document["checks"]
    assert all(check["remedy"] for check in checks if check["level"] in ("fault", "warning"))
    return {check["name"]: check for check in checks}


def only_fault(checks: Checks) -> dict[str, str]:
    """The one check that is at fault."""
    [found] = [check for check in checks.values() if check["level"] == "fault"]
    return found


# -- what is right ----------------------------------------------------------------------------------------------------


async def test_with_a_replica_at_work_everything_is_ok(variables: dict[str, str]) -> None:
    async with running(variables) as replica:
        await replica.bus.wait_connected(10)
        async with connected(variables["DROVER_DATABASE_URL"]) as sql:
            async with asyncio.timeout(10):
                while not await sql.fetchval("select count(*) from leadership where stream_opened_at is not null"):
                    await asyncio.sleep(0.02)  # the lease has no signal for it
        checks = await examined(variables, code=0)
    assert {check["level"] for check in checks.values()} == {"ok"}, checks
    assert replica.holder in checks["database.leadership"]["found"]
    assert {"settings", "broker.topology", "broker.permissions", "hub.key", "hub.model", "clock.hub"} <= set(checks)


async def test_people_read_lines_and_a_count(variables: dict[str, str], declared: Link) -> None:
    code, out, err = await drover("doctor", **variables)
    assert (code, err) == (0, ""), out
    lines = out.splitlines()
    assert any(line.startswith("warning") and "broker.consumers" in line for line in lines)
    assert any(line.strip().startswith("mend: Start one with `drover serve`") for line in lines)
    assert lines[-1].endswith("2 warning")


async def test_looking_changes_nothing(
    servers: Servers, amqp_url: str, variables: dict[str, str], declared: Link
) -> None:
    channel = await declared.channel(confirms=True)
    for queue in (REQUESTS, CANCELS, DEAD):
        await channel.basic_publish(b"left alone", routing_key=queue)
    vhost = urlsplit(amqp_url).path[1:]
    before = await servers.manage("GET", f"/api/bindings/{vhost}")
    checks = await examined(variables, code=0)
    assert "1 request(s) and 1 cancel(s) wait" in checks["broker.consumers"]["found"]
    assert "1 message(s) in quarantine" in checks["broker.quarantine"]["found"]
    assert await servers.manage("GET", f"/api/bindings/{vhost}") == before
    message = await channel.basic_get(REQUESTS)
    headers = message.header.properties.headers or {}
    assert (message.body, message.redelivered, headers.get("x-delivery-count", 0)) == (b"left alone", False, 0)


async def test_a_missing_topology_is_told_and_not_made(
    servers: Servers, amqp_url: str, variables: dict[str, str]
) -> None:
    found = only_fault(await examined(variables))
    assert found["name"] == "broker.topology"
    assert REQUESTS in found["found"]
    assert "`drover topology`" in found["remedy"]
    vhost = urlsplit(amqp_url).path[1:]
    assert json.loads(await servers.manage("GET", f"/api/queues/{vhost}")) == []


# -- the broker -------------------------------------------------------------------------------------------------------


async def test_a_wrong_broker_password(amqp_url: str, variables: dict[str, str]) -> None:
    wrong = as_user(amqp_url, "guest", PASSWORD)
    found = only_fault(await examined({**variables, "DROVER_AMQP_URL": wrong}))
    assert found["name"] == "broker.login"
    assert "DROVER_AMQP_URL" in found["remedy"]


async def test_a_missing_vhost_permission(amqp_url: str, stranger: str, variables: dict[str, str]) -> None:
    found = only_fault(await examined({**variables, "DROVER_AMQP_URL": stranger}))
    assert found["name"] == "broker.vhost"
    vhost, user = urlsplit(amqp_url).path[1:], urlsplit(stranger).username
    assert f"rabbitmqctl set_permissions -p '{vhost}' '{user}'" in found["remedy"]


async def test_permissions_for_less_than_drover_does(
    servers: Servers, stranger: str, variables: dict[str, str], declared: Link
) -> None:
    parts = urlsplit(stranger)
    path = f"/api/permissions/{parts.path[1:]}/{parts.username}"
    everything = "generation\\..*"
    await servers.manage("PUT", path, json.dumps({"configure": everything, "write": "x", "read": "x"}).encode())
    checks = await examined({**variables, "DROVER_AMQP_URL": stranger})
    found = only_fault(checks)
    assert found["name"] == "broker.permissions"
    assert f"consume the queue {REQUESTS}" in found["found"]
    assert "publish to the exchange generation.events" in found["found"]
    granted = {"configure": everything, "write": everything + "|amq\\.default", "read": everything}
    await servers.manage("PUT", path, json.dumps(granted).encode())
    checks = await examined({**variables, "DROVER_AMQP_URL": stranger}, code=0)
    assert checks["broker.permissions"]["level"] == "ok"  # what the remedy names is enough
    await servers.manage("PUT", path, json.dumps({**granted, "configure": "x"}).encode())
    checks = await examined({**variables, "DROVER_AMQP_URL": stranger}, code=0)
    assert "may not declare them" in checks["broker.topology"]["found"]  # which is no fault: another user does


async def test_a_queue_declared_with_other_arguments(amqp_url: str, variables: dict[str, str], declared: Link) -> None:
    channel = await declared.channel(confirms=False)
    await channel.queue_delete(REQUESTS)
    wanted = next(queue.arguments for queue in QUEUES if queue.name == REQUESTS)
    await channel.queue_declare(REQUESTS, durable=True, arguments={**wanted, "x-delivery-limit": 5})
    found = only_fault(await examined(variables))
    assert found["name"] == f"broker.queue.{REQUESTS}"
    assert "x-delivery-limit" in found["found"]
    assert "received '20' but current is '5'" in found["found"]
    assert "delete the queue" in found["remedy"]


async def test_a_broker_that_is_not_there(variables: dict[str, str]) -> None:
    found = only_fault(await examined({**variables, "DROVER_AMQP_URL": f"amqp://u:{PASSWORD}@127.0.0.1:1/"}))
    assert (found["name"], "127.0.0.1:1" in found["found"]) == ("broker.connection", True)


# -- the database -----------------------------------------------------------------------------------------------------


async def test_a_database_behind_on_migrations(database_url: str, variables: dict[str, str], declared: Link) -> None:
    async with connected(database_url) as sql:
        await sql.execute("delete from schema_migrations where version = 6")
    found = only_fault(await examined(variables))
    assert (found["name"], "0006_unpublished" in found["found"]) == ("database.migrations", True)
    assert "`drover migrate`" in found["remedy"]


async def test_a_schema_newer_than_this_version(database_url: str, variables: dict[str, str], declared: Link) -> None:
    async with connected(database_url) as sql:
        await sql.execute("insert into schema_migrations values (9999, 'later', 'x', now())")
    checks = await examined(variables, code=0)
    assert checks["database.migrations"]["level"] == "warning"
    assert "9999_later" in checks["database.migrations"]["found"]


async def test_a_read_only_database(database_url: str, variables: dict[str, str], declared: Link) -> None:
    name = urlsplit(database_url).path[1:]
    async with connected(database_url) as sql:
        await sql.execute(f"alter database {name} set default_transaction_read_only = on")
    found = only_fault(await examined(variables))
    assert found["name"] == "database.writable"
    assert f"alter database {name} reset default_transaction_read_only" in found["remedy"]


async def test_a_role_without_privileges(database_url: str, variables: dict[str, str], declared: Link) -> None:
    role = f"poor_{uuid4().hex[:12]}"
    parts = urlsplit(database_url)
    url = urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.hostname}:{parts.port}"))
    async with connected(database_url) as sql:
        await sql.execute(f"create role {role} login password '{PASSWORD}'")
        await sql.execute(f"grant select on requests, schema_migrations to {role}")
        try:
            checks = await examined({**variables, "DROVER_DATABASE_URL": url})
        finally:
            await sql.execute(f"drop owned by {role}")
            await sql.execute(f"drop role {role}")
    found = only_fault(checks)
    assert found["name"] == "database.privileges"
    assert "insert, update, delete on requests" in found["found"]
    assert f"to {role}" in found["remedy"]


async def test_a_database_that_is_not_there(database_url: str, variables: dict[str, str], declared: Link) -> None:
    missing = urlunsplit(urlsplit(database_url)._replace(path="/no_such_database"))
    found = only_fault(await examined({**variables, "DROVER_DATABASE_URL": missing}))
    assert (found["name"], "createdb" in found["remedy"]) == ("database.connection", True)
    closed = f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"
    found = only_fault(await examined({**variables, "DROVER_DATABASE_URL": closed}))
    assert (found["name"], "Start Postgres" in found["remedy"]) == ("database.connection", True)


# -- the hub ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_key(variables: dict[str, str], declared: Link) -> None:
    found = only_fault(await examined({**variables, "OXEN_API_KEY": PASSWORD}))
    assert (found["name"], "OXEN_API_KEY" in found["remedy"]) == ("hub.key", True)


async def test_a_hub_that_cannot_be_reached(variables: dict[str, str], declared: Link) -> None:
    found = only_fault(await examined({**variables, "OXEN_BASE_URL": "http://127.0.0.1:1"}))
    assert (found["name"], "could not be reached" in found["found"]) == ("hub.connection", True)
    assert "OXEN_BASE_URL" in found["remedy"]
    found = only_fault(await examined({**variables, "OXEN_BASE_URL": "http://no-such-host.invalid"}))
    assert "name resolution" in found["remedy"]


async def test_an_address_that_is_not_the_hubs(hub: Sandbox, variables: dict[str, str], declared: Link) -> None:
    found = only_fault(await examined({**variables, "OXEN_BASE_URL": f"{hub.url}/v1"}))
    assert found["name"] == "hub.connection"
    hub.faults = Faults(list_status=404, html_bodies=True)
    found = only_fault(await examined(variables))
    assert "is not the hub (404" in found["found"]


async def test_tls_that_does_not_work(hub: Sandbox, variables: dict[str, str], declared: Link) -> None:
    found = only_fault(await examined({**variables, "OXEN_BASE_URL": hub.url.replace("http:", "https:")}))
    assert (found["name"], "SSL_CERT_FILE" in found["remedy"]) == ("hub.connection", True)


@pytest.mark.parametrize(("offset_s", "side"), [(300, "ahead of"), (-300, "behind")])
async def test_a_hub_whose_clock_is_off_by_five_minutes(
    hub: Sandbox, variables: dict[str, str], declared: Link, offset_s: int, side: str
) -> None:
    hub.faults = Faults(clock_offset_s=offset_s)
    found = only_fault(await examined(variables))
    assert found["name"] == "clock.hub"
    assert f"5.0 min {side} ours" in found["found"]
    assert "agrees with the database's" in found["remedy"]


async def test_a_default_model_that_is_not_offered(hub: Sandbox, variables: dict[str, str], declared: Link) -> None:
    hub.faults = Faults(models_status=404)
    checks = await examined(variables, code=0)
    assert (checks["hub.model"]["level"], "does not offer" in checks["hub.model"]["found"]) == ("warning", True)


async def test_a_hub_url_with_a_password_is_told_without_it(hub: Sandbox, variables: dict[str, str]) -> None:
    with_password = hub.url.replace("//", f"//u:{PASSWORD}@")
    found = only_fault(await examined({**variables, "OXEN_BASE_URL": with_password}, code=2))
    assert (found["name"], "OXEN_API_KEY" in found["found"]) == ("settings", True)


# -- all of them ------------------------------------------------------------------------------------------------------


async def test_servers_that_never_answer_are_told_in_bounded_time_with_what_cut_them_off() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(10)
        there = f"127.0.0.1:{silent.getsockname()[1]}"
        variables = environment(f"amqp://u:p@{there}/", f"postgresql://u:p@{there}/x", f"http://{there}")
        checks = await examined(variables)
    told = [checks[f"{server}.connection"]["found"] for server in ("broker", "database", "hub")]
    assert [text.rpartition("no answer within ")[2] for text in told] == ["10 s.", "5 s.", "8 s."]


# -- settings ---------------------------------------------------------------------------------------------------------


async def test_settings_that_are_wrong_are_told_beside_what_can_be_looked_at_all_the_same(
    amqp_url: str, database_url: str, hub: Sandbox, declared: Link
) -> None:
    variables = environment(amqp_url, database_url, hub.url)
    del variables["OXEN_API_KEY"]
    checks = await examined({**variables, "OXEN_API_KEY_FILE": "/no/such/file"}, code=2)
    assert "OXEN_API_KEY_FILE cannot be read" in checks["settings"]["found"]
    assert checks["hub.connection"]["level"] == "not checked"
    assert checks["broker.topology"]["level"] == "ok"
    checks = await examined({**variables, "OXEN_API_KEY": "k", "DROVER_SHUTDOWN_GRACE_S": "1"}, code=2)
    assert "DROVER_SHUTDOWN_GRACE_S" in checks["settings"]["found"]
