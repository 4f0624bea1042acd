"""The relay between a real outbox and a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import cast

import pytest
import pytest_asyncio

from service.clock import utc_now
from service.domain.errors import BrokerUnavailableError
from service.domain.facts import HubAccepted
from service.domain.messages import OutboxEvent
from service.postgres.leader import LeaseStore
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from service.rabbit.bus import RabbitBus
from service.telemetry import Metrics
from service.workers.batches import Pace
from service.workers.ports import Bus
from service.workers.relay import Relay
from service.workers.wakeups import Wakeups
from tests.integration.builders import (
    Sql,
    accepted_by_hub,
    claimed,
    decided,
    ended,
    new_request,
    stored,
    submitted,
    succeeded,
)
from tests.support.bus import Team, name_of
from tests.support.proxy import Cable

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def relaying(
    url: str,
    outbox: Outbox,
    lease: LeaseStore,
    metrics: Metrics | None = None,
    batch_limit: int = 500,
    wakeups: Wakeups | None = None,
    confirm_timeout_s: float = 10.0,
) -> AsyncIterator[tuple[Relay, RabbitBus]]:
    """A relay of the present leader on a connected bus; it runs only when told to."""
    term = await lease.take(600)
    assert term is not None
    bus = RabbitBus(url, confirm_timeout_s=confirm_timeout_s)
    running = asyncio.create_task(bus.run())
    await bus.wait_connected(10)
    try:
        given = (wakeups or Wakeups(), metrics or Metrics())
        yield Relay(outbox, bus, *given, term=term, batch_limit=batch_limit), bus
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await bus.close()


class Meanwhile:
    """The bus, and what somebody else does each time before the broker confirms."""

    def __init__(self, bus: RabbitBus, act: Callable[[], Awaitable[None]]) -> None:
        self._bus = bus
        self._act = act

    async def publish_events(self, events: Sequence[OutboxEvent]) -> Sequence[Exception | None]:
        """As ever."""
        await self._act()
        return await self._bus.publish_events(events)

    async def publish_reply(self, event: OutboxEvent) -> bool:
        """As ever."""
        return await self._bus.publish_reply(event)


@pytest_asyncio.fixture
async def cable(amqp_url: str) -> AsyncIterator[Cable]:
    """The relay's cable to the broker."""
    async with Cable(amqp_url) as plugged:
        yield plugged


async def test_the_events_of_each_request_arrive_in_their_order(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    now = utc_now() - timedelta(seconds=1)
    for number in range(20):
        await ended(store, f"r-{number}", now=now)
    async with relaying(amqp_url, outbox, lease) as (relay, _), Team(amqp_url) as team:
        assert await relay.run_once() == 60
        assert await relay.run_once() == 0
        await team.wait_for(lambda heard: len(heard.events) == 60)
        for number in range(20):
            assert [name_of(event) for event in team.of(f"r-{number}")] == ["accepted", "submitted", "succeeded"]


async def test_while_the_broker_is_away_nothing_is_marked_and_afterwards_all_is_published_in_order(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, cable: Cable, amqp_url: str
) -> None:
    await ended(store, "r-1", now=utc_now() - timedelta(seconds=1))
    async with Team(amqp_url) as team, relaying(cable.url, outbox, lease) as (relay, bus):
        await cable.unplug()
        for _ in range(3):
            with pytest.raises(BrokerUnavailableError):
                await relay.run_once()
        assert await outbox.backlog(100) == 3
        assert {row.failures for row in await outbox.due(10, utc_now())} == {0}  # it was not the events' fault
        await cable.plug()
        await bus.wait_connected(10)
        assert await relay.run_once() == 3
        await team.wait_for(lambda heard: len(heard.events) == 3)
        assert [name_of(event) for event in team.of("r-1")] == ["accepted", "submitted", "succeeded"]
        assert await outbox.backlog(100) == 0


async def test_a_long_backlog_arrives_once_and_in_the_order_of_each_request(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    now = utc_now() - timedelta(seconds=1)
    for number in range(20):
        await ended(store, f"r-{number}", now=now)
    async with relaying(amqp_url, outbox, lease, batch_limit=7) as (relay, _), Team(amqp_url) as team:
        await relay.drain()
        assert await outbox.backlog(100) == 0
        await team.wait_for(lambda heard: len(heard.events) == 60)
    for number in range(20):
        assert [name_of(event) for event in team.of(f"r-{number}")] == ["accepted", "submitted", "succeeded"]


async def test_a_drain_ends_though_others_write_events_all_the_while(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    now, wakeups, later = utc_now() - timedelta(seconds=1), Wakeups(), count()

    async def write_another() -> None:
        await stored(store, f"later-{next(later)}", now=now)
        wakeups.events.set()

    async with relaying(amqp_url, outbox, lease) as (idle, bus), Team(amqp_url) as team:
        relay = Relay(outbox, cast("Bus", Meanwhile(bus, write_another)), wakeups, Metrics(), term=idle._term)
        await ended(store, "r-1", now=now)
        async with asyncio.timeout(10):
            await relay.drain()
        await team.wait_for(lambda heard: len(heard.of("r-1")) == 3)
        assert [name_of(event) for event in team.of("r-1")] == ["accepted", "submitted", "succeeded"]
        assert await outbox.backlog(100) == next(later)  # for the next leader
        assert await relay.run_once() == 0  # nor does the loop go on with them


async def test_while_a_full_batch_waits_for_its_confirms_the_next_is_published_and_no_more(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, cable: Cable, amqp_url: str
) -> None:
    await stored(store, *(f"r-{number}" for number in range(40)), now=utc_now() - timedelta(seconds=1))
    async with Team(amqp_url) as team, relaying(cable.url, outbox, lease, batch_limit=10) as (relay, _):
        cable.hold_answers()
        running = asyncio.create_task(relay.run())
        await team.wait_for(lambda heard: len(heard.events) == 20)
        assert await outbox.backlog(100) == 40
        await asyncio.sleep(0.1)  # nothing tells that nothing more comes
        assert len(team.events) == 20
        cable.pass_answers()
        await relay.drain()
        assert await outbox.backlog(100) == 0
        running.cancel()
        await team.wait_for(lambda heard: len(heard.events) == 40)
    assert len({event["id"] for event in team.events}) == 40


async def test_what_comes_while_a_batch_waits_for_its_confirms_is_published_unless_it_is_of_the_same_request(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, cable: Cable, amqp_url: str
) -> None:
    now, wakeups = utc_now() - timedelta(seconds=1), Wakeups()
    (request,) = await claimed(store, "r-1", now=now)
    async with Team(amqp_url) as team, relaying(cable.url, outbox, lease, wakeups=wakeups) as (relay, _):
        cable.hold_answers()
        running = asyncio.create_task(relay.run())
        await team.wait_for(lambda heard: len(heard.events) == 1)
        await store.apply([decided(request, accepted_by_hub("r-1"), now=now)], now)
        await stored(store, "r-2", now=now)
        wakeups.events.set()
        await team.wait_for(lambda heard: len(heard.events) == 2)
        assert [name_of(event) for event in team.of("r-2")] == ["accepted"]
        cable.pass_answers()
        await team.wait_for(lambda heard: len(heard.events) == 3)
        assert [name_of(event) for event in team.of("r-1")] == ["accepted", "submitted"]
        await relay.drain()
        running.cancel()
    assert await outbox.backlog(100) == 0


async def test_a_batch_that_is_given_up_does_not_take_the_next_one_with_it(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, cable: Cable, amqp_url: str
) -> None:
    now, wakeups, timeout_s = utc_now() - timedelta(seconds=1), Wakeups(), 1.0
    late = relaying(cable.url, outbox, lease, wakeups=wakeups, confirm_timeout_s=timeout_s)
    async with Team(amqp_url) as team, late as (relay, _):
        cable.hold_answers()
        await stored(store, "r-1", now=now)
        running = asyncio.create_task(relay.run())
        await team.wait_for(lambda heard: len(heard.events) == 1)
        await asyncio.sleep(0.6 * timeout_s)
        await stored(store, "r-2", now=now)
        wakeups.events.set()
        await team.wait_for(lambda heard: len(heard.events) == 2)
        await asyncio.sleep(0.6 * timeout_s)  # the first has waited for too long by now, the second has not
        cable.pass_answers()
        await team.wait_for(lambda heard: len(heard.of("r-1")) == 2)
        await relay.drain()
        running.cancel()
    assert len(team.of("r-2")) == 1
    assert await outbox.backlog(100) == 0


async def test_ends_are_published_before_what_else_is_in_the_batch(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    now = utc_now() - timedelta(seconds=1)
    async with relaying(amqp_url, outbox, lease) as (relay, _), Team(amqp_url) as team:
        (request,) = await submitted(store, "old", now=now)
        assert await relay.run_once() == 2
        await stored(store, *(f"new-{number}" for number in range(5)), now=now)
        await store.apply([decided(request, succeeded("g-old-0"), now=now)], now)
        assert await relay.run_once() == 6
        await team.wait_for(lambda heard: len(heard.events) == 8)
    assert [name_of(event) for event in team.events[2:]] == ["succeeded", *["accepted"] * 5]


async def test_a_busy_relay_lets_events_gather_until_there_is_an_end(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    wakeups, now = Wakeups(), utc_now() - timedelta(seconds=1)
    async with relaying(amqp_url, outbox, lease, wakeups=wakeups) as (relay, _), Team(amqp_url) as team:
        relay._pace = Pace(600.0, busy_per_s=1.0)
        await submitted(store, "first", now=now)
        assert await relay.run_once() == 2  # what came before tells how busy it is
        requests = await submitted(store, *(f"r-{number}" for number in range(10)), now=now)
        publishing = asyncio.create_task(relay.run())
        await team.wait_for(lambda heard: len(heard.events) == 22)
        await stored(store, "new", now=now)
        wakeups.events.set()
        with pytest.raises(TimeoutError):
            await team.wait_for(lambda heard: len(heard.events) > 22, 0.3)
        await store.apply([decided(requests[0], succeeded("g-r-0-0"), now=now)], now)
        wakeups.ends.set()
        await team.wait_for(lambda heard: len(heard.events) == 24)
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing


async def test_a_relay_that_is_ended_in_the_middle_publishes_the_same_again_when_it_is_begun_anew(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, cable: Cable, amqp_url: str
) -> None:
    await stored(store, *(f"r-{number}" for number in range(20)), now=utc_now() - timedelta(seconds=1))
    async with Team(amqp_url) as team, relaying(cable.url, outbox, lease, batch_limit=10) as (relay, _):
        cable.hold_answers()
        running = asyncio.create_task(relay.run())
        await team.wait_for(lambda heard: len(heard.events) == 20)
        running.cancel()
        await asyncio.wait([running])
        cable.pass_answers()
        await relay.drain()
        assert await outbox.backlog(100) == 0
        await team.wait_for(lambda heard: len(heard.events) == 40)
    assert len({event["id"] for event in team.events}) == 20


async def test_a_reply_that_cannot_be_routed_is_counted_and_holds_up_nothing(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str
) -> None:
    metrics = Metrics()
    now = utc_now() - timedelta(seconds=1)
    async with relaying(amqp_url, outbox, lease, metrics) as (relay, _), Team(amqp_url) as team:
        await stored(store, new_request("gone", reply_to="gone"), new_request("there", reply_to=team.reply_to), now=now)
        for item in await store.claim(2, "first", 30, now):
            await store.apply([decided(item.request, HubAccepted((f"g-{item.request.request_id}",)), now=now)], now)
        for request in (await store.load(["gone", "there"])).values():
            await store.apply([decided(request, succeeded(f"g-{request.request_id}"), now=now)], now)
        assert await relay.run_once() == 6
        await team.wait_for(lambda heard: len(heard.events) == 6 and len(heard.replies) == 1)
    assert metrics.registry.get_sample_value("drover_replies_undeliverable_total") == 1
    assert await outbox.backlog(100) == 0


async def test_an_event_that_no_queue_takes_waits_apart_with_its_successors(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str, sql: Sql
) -> None:
    now = utc_now() - timedelta(seconds=1)
    await ended(store, "r-1", now=now)
    await ended(store, "r-2", now=now)
    await sql.execute(
        "update outbox set routing_key = 'nobody.takes.this', terminal = true where request_id = 'r-1' and sequence = 2"
    )
    async with relaying(amqp_url, outbox, lease) as (relay, _):
        assert await relay.run_once() == 4
        assert await relay.run_once() == 0
    left = await outbox.due(10, now + timedelta(days=1))
    assert [(row.event.request_id, row.event.sequence, row.failures) for row in left] == [("r-1", 2, 1), ("r-1", 3, 0)]


async def test_a_relay_whose_term_is_over_marks_nothing_and_pauses(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str, sql: Sql
) -> None:
    await stored(store, "r-1", now=utc_now() - timedelta(seconds=1))
    async with relaying(amqp_url, outbox, lease) as (relay, _):
        await sql.execute("update leadership set term = term + 1")
        assert await relay.run_once() == 0  # anything else, and `run` would publish the same again at once
    assert await outbox.backlog(10) == 1


async def test_nor_does_it_publish_a_long_backlog_again_and_again(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, amqp_url: str, sql: Sql
) -> None:
    await stored(store, *(f"r-{number}" for number in range(30)), now=utc_now() - timedelta(seconds=1))
    async with relaying(amqp_url, outbox, lease, batch_limit=10) as (relay, _), Team(amqp_url) as team:
        await sql.execute("update leadership set term = term + 1")
        async with asyncio.timeout(10):
            await relay.drain()
        await team.wait_for(lambda heard: len(heard.events) >= 10)
        assert len(team.events) <= 20
    assert await outbox.backlog(100) == 30
