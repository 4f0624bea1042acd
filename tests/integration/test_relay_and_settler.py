"""The relay between a real outbox and a real broker, and settlers that contradict each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import pytest
import pytest_asyncio

from service.clock import utc_now
from service.domain.errors import BrokerUnavailableError
from service.domain.facts import Fact, HubAccepted, OutcomeUnknown, OutputReported
from service.domain.states import Request, RequestState
from service.postgres.database import Database
from service.postgres.leader import LeaseStore
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from service.rabbit.bus import RabbitBus
from service.telemetry import Metrics
from service.workers.relay import Relay
from service.workers.settler import Case, Elsewhere, Settler
from service.workers.wakeups import Wakeups
from tests.integration.builders import (
    Sql,
    accepted_by_hub,
    claimed,
    decided,
    ended,
    failed,
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


@pytest_asyncio.fixture
async def cable(amqp_url: str) -> AsyncIterator[Cable]:
    """The relay's cable to the broker."""
    async with Cable(amqp_url) as plugged:
        yield plugged


@pytest.fixture
def settler(store: RequestStore, outbox: Outbox) -> Settler:
    """A replica's settler."""
    return Settler(store, outbox, Wakeups(), Metrics(), elsewhere=Elsewhere(outbox))


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


# -- races of settlers ---------------------------------------------------------------------------------------------


async def terminal_events(outbox: Outbox, request_id: str) -> list[str]:
    """The terminal events of a request."""
    rows = await outbox.due(1000, utc_now() + timedelta(days=36500))
    return [row.event.type for row in rows if row.event.request_id == request_id and row.event.terminal]


async def test_contradicting_ends_at_once_make_one_terminal_event(
    store: RequestStore, outbox: Outbox, settler: Settler
) -> None:
    ids = [f"r-{number}" for number in range(20)]
    await submitted(store, *ids)
    reports = [[make(f"g-{key}-0") for key in ids] for make in (succeeded, failed)]
    await asyncio.gather(*(settler.settle_reports(batch) for batch in reports * 4))
    for request in (await store.load(ids)).values():
        (told,) = await terminal_events(outbox, request.request_id)
        assert told == f"generation.{request.state.value}"
        assert request.outputs[0].status.value == request.state.value
        assert request.sequence == 3


async def test_the_outputs_of_one_request_that_end_at_once_are_all_counted(
    store: RequestStore, outbox: Outbox, settler: Settler
) -> None:
    await submitted(store, "r-1", outputs=4)
    await asyncio.gather(*(settler.settle_reports([succeeded(f"g-r-1-{index}")]) for index in range(4)))
    request = (await store.load(["r-1"]))["r-1"]
    assert request.state is RequestState.SUCCEEDED
    assert request.sequence == 7  # accepted, submitted, four outputs, the end
    assert await terminal_events(outbox, "r-1") == ["generation.succeeded"]


async def test_the_answer_to_a_post_and_the_end_of_its_claim_at_once_agree_on_one_state(
    store: RequestStore, outbox: Outbox, settler: Settler
) -> None:
    ids = [f"r-{number}" for number in range(20)]
    requests = await claimed(store, *ids)

    async def settle(fact_of: dict[str, Fact]) -> None:
        await settler.settle([Case(r.request_id, [fact_of[r.request_id]], r) for r in requests])

    await asyncio.gather(
        settle({key: HubAccepted((f"g-{key}",)) for key in ids}), settle(dict.fromkeys(ids, OutcomeUnknown("late")))
    )
    after = await store.load(ids)
    assert {request.state for request in after.values()} == {RequestState.SUBMITTED}
    assert all(len(request.outputs) == 1 for request in after.values())
    assert await outbox.backlog(1000) == 40


async def test_an_end_that_comes_before_its_ids_is_not_lost_in_either_order(
    store: RequestStore, outbox: Outbox, settler: Settler
) -> None:
    requests = await claimed(store, *(f"r-{number}" for number in range(20)))

    async def store_ids() -> None:
        await settler.settle([Case(r.request_id, [HubAccepted((f"g-{r.request_id}",))], r) for r in requests])
        _, heard = await store.heard_of([f"g-{r.request_id}" for r in requests])
        await settler.settle_reports(heard)

    await asyncio.gather(store_ids(), *(settler.settle_reports([succeeded(f"g-{r.request_id}")]) for r in requests))
    after = await store.load([r.request_id for r in requests])
    assert {request.state for request in after.values()} == {RequestState.SUCCEEDED}
    assert len(await store.matched_orphans(10)) == 0


async def test_an_end_that_is_kept_just_after_its_ids_were_stored_and_looked_for_is_seen_at_the_second_look(
    store: RequestStore, outbox: Outbox, database: Database
) -> None:
    (request,) = await claimed(store, "r-1")

    class Overtaken(RequestStore):
        """Between the look for the owner and the keeping of the orphan, the submitter does all of its part."""

        async def insert_orphans(self, reports: Sequence[OutputReported], now: datetime) -> None:
            await store.apply([decided(request, HubAccepted(("g-1",)))], now)
            assert await store.heard_of(["g-1"]) == (None, [])
            await super().insert_orphans(reports, now)

    settler = Settler(Overtaken(database), outbox, Wakeups(), Metrics(), elsewhere=Elsewhere(outbox))
    await settler.settle_reports([succeeded("g-1")])
    assert (await store.load(["r-1"]))["r-1"].state is RequestState.SUCCEEDED


# -- snapshots ------------------------------------------------------------------------------------------------------


class Counting(RequestStore):
    """Counts how often requests are read."""

    reads = 0

    async def load(self, request_ids: Sequence[str]) -> dict[str, Request]:
        self.reads += 1
        return await super().load(request_ids)

    async def load_owners(self, generation_ids: Sequence[str]) -> dict[str, Request]:
        self.reads += 1
        return await super().load_owners(generation_ids)


def leading_settler(store: RequestStore, outbox: Outbox) -> Settler:
    """The settler of the replica that hears of ends."""
    elsewhere = Elsewhere(outbox)
    elsewhere.leading = True
    return Settler(store, outbox, Wakeups(), Metrics(), elsewhere=elsewhere)


async def test_the_leader_reads_nothing_to_settle_the_ends_of_what_it_has_submitted(
    database: Database, outbox: Outbox
) -> None:
    store = Counting(database)
    settler = leading_settler(store, outbox)
    (request,) = await claimed(store, "r-1")
    await settler.settle([Case("r-1", [accepted_by_hub("r-1", 2)], request)])
    assert await settler.settle_reports([succeeded("g-r-1-0")]) == 1
    assert await settler.settle_reports([succeeded("g-r-1-1")]) == 1
    assert store.reads == 0
    assert await settler.settle_reports([succeeded("g-r-1-1")]) == 0  # told again: it has been forgotten
    assert store.reads == 1
    assert (await store.load(["r-1"]))["r-1"].state is RequestState.SUCCEEDED


async def test_what_another_replica_has_written_meanwhile_is_not_overwritten_from_memory(
    database: Database, outbox: Outbox, store: RequestStore
) -> None:
    settler = leading_settler(store, outbox)
    (request,) = await claimed(store, "r-1")
    await settler.settle([Case("r-1", [accepted_by_hub("r-1", 2)], request)])
    now = (await store.load(["r-1"]))["r-1"]
    assert await store.apply([decided(now, failed("g-r-1-0"))], utc_now()) == {"r-1"}
    assert await settler.settle_reports([succeeded("g-r-1-1")]) == 1
    after = (await store.load(["r-1"]))["r-1"]
    assert [output.status.value for output in after.outputs] == ["failed", "succeeded"]
    assert after.state is RequestState.SUCCEEDED


async def test_a_replica_that_does_not_lead_remembers_nothing(database: Database, outbox: Outbox) -> None:
    store = Counting(database)
    settler = Settler(store, outbox, Wakeups(), Metrics(), elsewhere=Elsewhere(outbox))
    (request,) = await claimed(store, "r-1")
    await settler.settle([Case("r-1", [accepted_by_hub("r-1")], request)])
    await settler.settle_reports([succeeded("g-r-1-0")])
    assert store.reads == 1
