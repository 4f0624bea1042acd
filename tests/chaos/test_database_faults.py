"""The database dies, freezes, takes no writes, loses an answer: waits are bounded and told, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from deploy.local.ports import choose
from deploy.local.postgres import PostgresServer
from service.rabbit.topology import DEAD, REQUESTS
from service.sandbox import Sandbox, SandboxOptions
from tests.support.answers import StatementCable
from tests.support.broker import wait_ready
from tests.support.bus import Team, name_of
from tests.support.private import frozen, private_postgres
from tests.support.proxy import Cable
from tests.support.replica import KEY, Process, environment, get, running
from tests.support.streams import StreamWatch

pytestmark = [pytest.mark.asyncio, pytest.mark.chaos_long]
STATEMENT_S = 10.0  # what one statement may take
CLOSING_S = 3.0  # what a busy machine needs to close what is left after the grace


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A database server of this file alone."""
    with private_postgres() as server:
        yield server


@pytest.fixture
def private_url(postgres: PostgresServer) -> str:
    """A fresh database on it; the service brings the schema."""
    name = f"test_{uuid4().hex[:12]}"
    postgres.start()  # unless it runs: a test that failed may have left it dead
    postgres.create_database(name)
    return postgres.database_url(name)


@pytest.fixture
def http_port() -> int:
    """Where a replica in this process tells how it is."""
    return choose(("http",), {})["http"]


@pytest_asyncio.fixture
async def slow_hub() -> AsyncIterator[Sandbox]:
    """A hub whose generations end while the database is away."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=2.0, jitter_s=1.5, render=False)) as hub:
        yield hub


def requests(prefix: str, count: int) -> list[dict[str, object]]:
    """Requests of one team."""
    return [{"request_id": f"{prefix}{i}", "input": {"prompt": f"{prefix} {i}"}} for i in range(count)]


async def submitted(team: Team, count: int) -> None:
    """Waits until the hub has taken that many."""
    await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) >= count)


async def all_ended(team: Team, *sent: dict[str, object], timeout_s: float = 30) -> None:
    """Waits for the success of each, and sees that each has one end; nothing was put away."""
    ids = [str(request["request_id"]) for request in sent]
    await team.wait_for(lambda heard: all(map(heard.ends, ids)), timeout_s)
    assert all(len({end["id"] for end in team.ends(request_id)}) == 1 for request_id in ids)
    assert {name_of(end) for request_id in ids for end in team.ends(request_id)} == {"succeeded"}
    assert await team.ready_messages(DEAD) == 0


async def readiness(port: int) -> tuple[int, dict[str, Any]]:
    """What /readyz says."""
    status, body = await get(f"http://127.0.0.1:{port}/readyz")
    return status, json.loads(body)["reasons"]


async def ready_again(port: int) -> None:
    """Waits until it is."""
    until = time.monotonic() + 40
    while (told := await readiness(port))[0] != 200:
        assert time.monotonic() < until, told
        await asyncio.sleep(0.05)


async def test_a_database_that_is_killed_under_load_and_comes_back_is_served_by_the_same_process(
    postgres: PostgresServer, private_url: str, amqp_url: str, slow_hub: Sandbox
) -> None:
    before, after = requests("before", 100), requests("after", 10)
    variables = environment(amqp_url, private_url, slow_hub.url, DROVER_DOUBT_GRACE_S="1", DROVER_SUBMIT_TIMEOUT_S="2")
    async with Process(variables) as drover, Team(amqp_url) as team:
        port = await drover.ready()
        await team.send_many(before)
        await submitted(team, 20)
        await asyncio.to_thread(postgres.kill)
        status, reasons = await readiness(port)
        assert status == 503
        assert "database" in reasons
        await asyncio.to_thread(postgres.start)
        await team.send_many(after)
        await all_ended(team, *before, *after, timeout_s=40)
        await ready_again(port)
    assert len(slow_hub.ledger()["generations"]) == len(before) + len(after)


async def test_while_the_database_takes_no_writes_nothing_is_lost_and_it_goes_on_when_it_does(
    private_url: str, amqp_url: str, slow_hub: Sandbox, http_port: int
) -> None:
    """A fail-over that left us with the former primary, which still answers."""
    before, during = requests("before", 20), requests("during", 20)
    variables = environment(amqp_url, private_url, slow_hub.url, DROVER_HTTP_PORT=str(http_port))
    async with running(variables) as app, Team(amqp_url) as team:
        streams = StreamWatch(slow_hub)
        await team.send_many(before)
        await submitted(team, len(before))
        await streams.until(1)
        operator = await asyncpg.connect(private_url)
        await operator.execute("alter system set default_transaction_read_only = on")
        await operator.execute("select pg_reload_conf()")
        await team.send_many(during)
        await wait_ready(lambda: app.consumer.fault is not None)
        status, reasons = await readiness(http_port)
        assert status == 503
        assert reasons["database"] == "Postgres answers, but takes no writes (a standby, or read-only)."
        assert reasons["broker"].startswith("not consuming generation.requests: paused, the database has taken nothing")
        await streams.until(0, 10)  # nobody leads
        await operator.execute("set default_transaction_read_only = off")
        await operator.execute("alter system reset default_transaction_read_only")
        await operator.execute("select pg_reload_conf()")
        await operator.close()
        await all_ended(team, *before, *during)
        await ready_again(http_port)
    assert len(slow_hub.ledger()["generations"]) == len(before) + len(during)


@pytest.mark.chaos_long
async def test_a_frozen_database_is_waited_for_in_bounded_waits_that_the_log_tells(
    postgres: PostgresServer, private_url: str, amqp_url: str, slow_hub: Sandbox
) -> None:
    sent = requests("r", 20)
    async with Process(environment(amqp_url, private_url, slow_hub.url)) as drover, Team(amqp_url) as team:
        port = await drover.ready()
        await team.send_many(sent)
        await submitted(team, len(sent))
        with frozen(postgres.pid):
            began = time.monotonic()
            await team.send({"request_id": "late", "input": {"prompt": "late"}})
            for event in ("leadership.lost", "pulse.missed", "lease.not_renewed", "consumer.paused"):
                await drover.logged(event, STATEMENT_S + 5)
            assert time.monotonic() - began < STATEMENT_S + 5
            asked = time.monotonic()
            status, reasons = await readiness(port)
            assert status == 503
            assert "database" in reasons
            assert time.monotonic() - asked < 8
        await all_ended(team, *sent, {"request_id": "late"})
        await ready_again(port)
    assert len(slow_hub.ledger()["generations"]) == len(sent) + 1


async def test_told_to_go_while_its_database_is_frozen_a_replica_ends_within_its_grace(
    postgres: PostgresServer, private_url: str, amqp_url: str, slow_hub: Sandbox
) -> None:
    grace_s = 8.0
    variables = environment(
        amqp_url,
        private_url,
        slow_hub.url,
        DROVER_SHUTDOWN_GRACE_S=str(grace_s),
        DROVER_SUBMIT_TIMEOUT_S="2",
    )
    async with Process(variables) as drover, Team(amqp_url) as team:
        await drover.ready()
        slow_hub.faults.answer_delay_s = 1.0
        await team.send_many(requests("r", 20))
        async with asyncio.timeout(10):
            while slow_hub.ledger()["calls"].get("post", 0) < 20:
                await asyncio.sleep(0.02)  # the sandbox has no signal for a POST
        with frozen(postgres.pid):
            await team.send({"request_id": "late", "input": {"prompt": "late"}})
            await asyncio.sleep(2)  # it has outcomes that it cannot write, and every loop of it waits
            told = time.monotonic()
            drover.terminate()
            assert await drover.ended(40) == 0
            took = time.monotonic() - told
            assert took < grace_s + CLOSING_S, took
    assert await _left(amqp_url, REQUESTS) == 1


async def _left(amqp_url: str, queue: str) -> int:
    async with Team(amqp_url) as team:
        return await team.ready_messages(queue)


async def test_while_the_database_is_away_messages_wait_at_the_broker_and_lose_no_deliveries(
    amqp_url: str, database_url: str, hub: Sandbox, http_port: int
) -> None:
    sent = requests("r", 20)
    async with (
        Cable(database_url) as database,
        Cable(amqp_url) as broker,
        running(environment(broker.url, database.url, hub.url, DROVER_HTTP_PORT=str(http_port))) as app,
        Team(amqp_url) as team,
    ):
        await database.unplug()
        await team.send_many(sent)
        await wait_ready(lambda: app.consumer.fault is not None)
        for _ in range(3):
            broker.cut()
            await wait_ready(lambda: app.consumer._session is None)
            await wait_ready(lambda: app.consumer._session is not None)
        # Those that it held came back with the first loss; since then nobody has taken any.
        assert await team.ready_messages(REQUESTS) == len(sent)
        assert "paused" in (await readiness(http_port))[1]["broker"]
        await database.plug()
        await all_ended(team, *sent)
        await ready_again(http_port)
    assert len(hub.ledger()["generations"]) == len(sent)


@pytest.mark.parametrize("statement", ["insert_requests", "apply", "mark_published"])
async def test_a_commit_whose_answer_was_lost_is_done_once(
    amqp_url: str, database_url: str, hub: Sandbox, statement: str
) -> None:
    async with (
        StatementCable(database_url) as cable,
        running(environment(amqp_url, cable.url, hub.url)) as app,
        Team(amqp_url) as team,
    ):
        cable.lose_answer(statement)
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await asyncio.wait_for(cable.lost.wait(), 10)
        await all_ended(team, {"request_id": "r"})
        await team.send({"request_id": "next", "input": {"prompt": "x"}})
        await all_ended(team, {"request_id": "next"})
        for state in ("submitted", "succeeded"):  # a change of state has its line and its count all the same
            assert app.metrics.registry.get_sample_value("drover_requests_total", {"state": state}) == 2
    assert len(hub.ledger()["generations"]) == 2
    assert [name_of(event) for event in team.of("r")] == ["accepted", "submitted", "succeeded"]


@pytest.mark.chaos_long
async def test_a_claim_whose_answer_was_lost_is_looked_for_and_submitted_once(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    variables = {"DROVER_SUBMIT_TIMEOUT_S": "1", "DROVER_DOUBT_GRACE_S": "1"}
    async with (
        StatementCable(database_url) as cable,
        running(environment(amqp_url, cable.url, hub.url, **variables)),
        Team(amqp_url) as team,
    ):
        cable.lose_answer("claim")
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await asyncio.wait_for(cable.lost.wait(), 10)
        await all_ended(team, {"request_id": "r"}, timeout_s=40)
    assert len(hub.ledger()["generations"]) == 1
