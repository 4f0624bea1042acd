"""The broker dies, freezes, runs short, loses a queue, loses patience: the process goes on, and no event is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
import pytest_asyncio

from deploy.local.rabbit import RabbitServer
from service.domain.errors import BrokerUnavailableError
from service.rabbit import connection
from service.rabbit.connection import Link
from service.rabbit.quarantine import Choice, Quarantine
from service.rabbit.topology import DEAD, REQUESTS, declare
from service.sandbox import Sandbox, SandboxOptions
from tests.support.broker import wait_ready
from tests.support.bus import LastingTeam, Team, name_of
from tests.support.private import frozen, private_rabbit
from tests.support.proxy import Cable
from tests.support.replica import KEY, Process, environment, get, running

pytestmark = [pytest.mark.asyncio, pytest.mark.chaos_long]
CLOSING_S = 3.0  # what a busy machine needs to close what is left after the grace


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitServer]:
    """A broker of this file alone."""
    with private_rabbit() as server:
        yield server


@pytest.fixture
def private_url(rabbit: RabbitServer) -> str:
    """A fresh vhost on it."""
    name = f"test-{uuid4().hex[:12]}"
    rabbit.start()  # unless it runs: a test that failed may have left it dead
    rabbit.create_vhost(name)
    return rabbit.vhost_url(name)  # it goes with the broker


@pytest_asyncio.fixture
async def slow_hub() -> AsyncIterator[Sandbox]:
    """A hub whose generations end while the broker is away."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=2.0, jitter_s=1.5, render=False)) as hub:
        yield hub


def requests(prefix: str, count: int) -> list[dict[str, object]]:
    """Requests of one team."""
    return [{"request_id": f"{prefix}{i}", "input": {"prompt": f"{prefix} {i}"}} for i in range(count)]


async def all_ended(team: Team, *sent: dict[str, object], timeout_s: float = 30) -> None:
    """Waits for the end of each, and sees that each has one, however often it was told."""
    ids = [str(request["request_id"]) for request in sent]
    await team.wait_for(lambda heard: all(map(heard.ends, ids)), timeout_s)
    assert all(len({end["id"] for end in team.ends(request_id)}) == 1 for request_id in ids)
    assert {name_of(end) for request_id in ids for end in team.ends(request_id)} == {"succeeded"}


async def evaluate(rabbit: RabbitServer, *expressions: str) -> None:
    """Runs Erlang in the broker."""
    done = await asyncio.to_thread(rabbit.ctl, "eval", ", ".join(expressions) + ".")
    assert done.returncode == 0, done.stderr


async def readiness(port: int) -> tuple[int, dict[str, Any]]:
    """What /readyz says."""
    status, body = await get(f"http://127.0.0.1:{port}/readyz")
    return status, json.loads(body)


async def ready_again(port: int) -> None:
    """Waits until it is: an attempt that began just before the broker could answer has its own limit of 10 s."""
    until = time.monotonic() + 40
    while (told := await readiness(port))[0] != 200:
        assert time.monotonic() < until, told
        await asyncio.sleep(0.05)


async def test_a_broker_that_is_killed_and_comes_back_is_served_by_the_same_process(
    rabbit: RabbitServer, private_url: str, database_url: str, slow_hub: Sandbox
) -> None:
    before, after = requests("before", 40), requests("after", 10)
    async with Process(environment(private_url, database_url, slow_hub.url)) as drover:
        port = await drover.ready()
        # RabbitMQ 3.10 notes its quorum queues on disk a moment late: one that was declared just before the kill is
        # there afterwards, and answers nobody.
        await asyncio.sleep(4)
        async with LastingTeam(private_url) as team:
            await team.send_many(before)
            await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) >= 10)
            await asyncio.to_thread(rabbit.kill)
            await drover.logged("consumer.lost")
            assert (await readiness(port))[0] == 503
            await asyncio.to_thread(rabbit.start)
            back = time.monotonic()
            await all_ended(team, *before, timeout_s=15)
            assert time.monotonic() - back < 15
            await team.send_many(after)
            await all_ended(team, *after)
            await ready_again(port)
        assert drover.process.returncode is None
    assert len(slow_hub.ledger()["generations"]) == len(before) + len(after)


async def test_a_broker_that_freezes_for_longer_than_the_heartbeat_is_given_up_and_found_again(
    rabbit: RabbitServer, private_url: str, database_url: str, slow_hub: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT_S", 1)
    sent = requests("r", 20)
    async with running(environment(private_url, database_url, slow_hub.url)) as app, LastingTeam(private_url) as team:
        await team.send_many(sent)
        await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) >= 5)
        with frozen(rabbit.pid):
            await wait_ready(lambda: not app.bus.connected and not app.consumer.consuming, 15)
        await all_ended(team, *sent)
        await wait_ready(lambda: app.consumer.consuming, 15)  # its connection comes back in its own time
    assert len(slow_hub.ledger()["generations"]) == len(sent)


async def test_a_publish_whose_confirm_was_lost_is_repeated_with_the_same_event_id(
    amqp_url: str, database_url: str, slow_hub: Sandbox
) -> None:
    async with (
        Cable(amqp_url) as cable,
        running(environment(cable.url, database_url, slow_hub.url)) as app,
        Team(amqp_url) as team,
    ):
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        await team.wait_for(lambda heard: len(heard.events) == 2)
        cable.hold_answers()
        end = await team.end_of("r")  # it arrived, and the confirm did not
        cable.cut()
        cable.pass_answers()
        await team.wait_for(lambda heard: len(heard.ends("r")) == 2)
        assert team.ends("r") == [end, end]
        assert [message.message_id for message in team.messages[-2:]] == [end["id"]] * 2
        async with asyncio.timeout(5):
            while await app.outbox.backlog(1):
                await asyncio.sleep(0.02)  # a mark has no signal


@pytest.mark.parametrize(
    ("resource", "lasts_s"), [("memory", 0), pytest.param("disk", 25, marks=pytest.mark.chaos_long)]
)
async def test_while_an_alarm_blocks_publishers_intake_and_submission_go_on_and_afterwards_every_event_comes(
    rabbit: RabbitServer, private_url: str, database_url: str, hub: Sandbox, resource: str, lasts_s: int
) -> None:
    sent = requests("r", 20)
    variables = environment(private_url, database_url, hub.url)
    alarm = f"{{resource_limit, {resource}, node()}}"
    async with LastingTeam(private_url) as team:
        async with running(variables):
            pass  # declares what the team sends to
        await team.send_many(sent)  # while the alarm lasts, no producer could
        await evaluate(rabbit, f"rabbit_alarm:set_alarm({{{alarm}, []}})")
        try:
            async with Process(variables) as drover:
                port = await drover.ready()
                await drover.logged("publishing.blocked")
                await _until_counted(database_url, "succeeded", len(sent))
                assert len(hub.ledger()["generations"]) == len(sent)
                assert not team.events
                status, told = await readiness(port)
                assert status == 200  # to take the replicas away for it would make the alarm an outage
                assert told["publishing"] == "blocked by the broker: an alarm (memory or disk)"
                metrics = (await get(f"http://127.0.0.1:{port}/metrics"))[1]
                assert b"drover_publishing_blocked 1.0" in metrics
                await asyncio.sleep(lasts_s)  # longer than a confirm is waited for: what is tried again adds up
                await evaluate(rabbit, f"rabbit_alarm:clear_alarm({alarm})")
                await all_ended(team, *sent)
                await drover.logged("publishing.unblocked")
                assert (await readiness(port))[1]["publishing"] == "open"
        finally:
            await evaluate(rabbit, f"rabbit_alarm:clear_alarm({alarm})")
    names = ["accepted", "submitted", "succeeded"]
    assert all([name_of(event) for event in _distinct(team, request)] == names for request in sent)
    assert max(Counter(event["id"] for event in team.events).values()) <= 2


def _distinct(team: Team, request: dict[str, object]) -> list[dict[str, Any]]:
    """The events of a request in their order, each once."""
    of = {event["sequence"]: event for event in team.of(str(request["request_id"]))}
    return [of[sequence] for sequence in sorted(of)]


async def _until_counted(database_url: str, state: str, count: int) -> None:
    looking = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(20):
            while await looking.fetchval("select count(*) from requests where state::text = $1", state) != count:
                await asyncio.sleep(0.05)  # there is no event: that is the point
    finally:
        await looking.close()


async def test_a_queue_that_is_deleted_under_the_consumer_is_declared_anew_and_the_log_says_why(
    variables: dict[str, str], amqp_url: str
) -> None:
    async with Process(variables) as drover, Team(amqp_url) as team:
        await drover.ready()
        operator = await aio_pika.connect(amqp_url)
        await (await operator.channel()).queue_delete(REQUESTS)
        deleted = time.monotonic()
        lost = await drover.logged("consumer.lost")
        assert lost["reason"] == "the broker ended the consumer: its queue was deleted, or has moved"
        started = {"event": "consumer.started", "queue": REQUESTS}
        async with asyncio.timeout(10):
            while sum(started.items() <= line.items() for line in drover.lines) < 2:
                await asyncio.sleep(0.02)
        await team.send({"request_id": "r", "input": {"prompt": "x"}})
        assert name_of(await team.end_of("r")) == "succeeded"
        assert time.monotonic() - deleted < 10
        await operator.close()


def patience(**milliseconds: int) -> list[str]:
    """For how long the broker waits for an acknowledgement, and how often it looks."""
    return [f"application:set_env(rabbit, {name}, {value})" for name, value in milliseconds.items()]


async def test_deliveries_that_are_held_for_longer_than_the_broker_waits_come_again_and_nothing_happens_twice(
    rabbit: RabbitServer, private_url: str, database_url: str, hub: Sandbox
) -> None:
    await evaluate(rabbit, *patience(consumer_timeout=2000, channel_tick_interval=500))
    sent = requests("r", 10)
    locker = await asyncpg.connect(database_url)
    try:
        async with Process(environment(private_url, database_url, hub.url)) as drover, Team(private_url) as team:
            await drover.ready()
            async with locker.transaction():
                await locker.execute("lock table requests in access exclusive mode")
                await team.send_many(sent)
                lost = await drover.logged("consumer.lost")
                assert "timeout" in lost["reason"]
            await all_ended(team, *sent)
            assert await team.ready_messages(REQUESTS) == 0
    finally:
        await locker.close()
        await evaluate(rabbit, *patience(consumer_timeout=1_800_000, channel_tick_interval=60_000))
    assert len(hub.ledger()["generations"]) == len(sent)


@pytest.mark.chaos_long
async def test_told_to_go_while_its_broker_is_frozen_a_replica_ends_within_its_grace(
    rabbit: RabbitServer, private_url: str, database_url: str, slow_hub: Sandbox
) -> None:
    grace_s = 8.0
    limits = {"DROVER_SHUTDOWN_GRACE_S": str(grace_s), "DROVER_SUBMIT_TIMEOUT_S": "2"}
    async with Process(environment(private_url, database_url, slow_hub.url, **limits)) as drover:
        await drover.ready()
        async with LastingTeam(private_url) as team:
            await team.send_many(requests("r", 20))
            await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) >= 5)
        with frozen(rabbit.pid):
            await asyncio.sleep(1)  # its relay waits for confirms by now
            told = time.monotonic()
            drover.terminate()
            assert await drover.ended() == 0
            took = time.monotonic() - told
            assert took < grace_s + CLOSING_S, took


@pytest.mark.chaos_long  # it waits for time limits
async def test_while_an_alarm_blocks_publishers_letters_are_listed_and_a_replay_says_why_it_does_not_work(
    rabbit: RabbitServer, private_url: str
) -> None:
    link = await Link.open(private_url, "test")
    await declare(await link.channel(confirms=False))
    sending = await link.channel(confirms=True)
    for number in range(3):
        await sending.basic_publish(str(number).encode(), exchange=DEAD)
    await link.close()
    alarm = "{resource_limit, memory, node()}"
    await evaluate(rabbit, f"rabbit_alarm:set_alarm({{{alarm}, []}})")
    try:
        assert await bodies_in_quarantine(private_url) == [b"0", b"1", b"2"]
        async with Quarantine(private_url) as quarantine:
            with pytest.raises(BrokerUnavailableError, match=r"(?i)alarm"):
                await anext(quarantine.replay(Choice()))
        assert await bodies_in_quarantine(private_url) == [b"0", b"1", b"2"]
    finally:
        await evaluate(rabbit, f"rabbit_alarm:clear_alarm({alarm})")
    async with Quarantine(private_url) as quarantine:
        assert [letter.body async for letter in quarantine.replay(Choice())] == [b"0", b"1", b"2"]


async def bodies_in_quarantine(url: str) -> list[bytes]:
    """What an operator sees."""
    async with Quarantine(url) as quarantine:
        return [held.letter.body async for held in quarantine.find(Choice())]
