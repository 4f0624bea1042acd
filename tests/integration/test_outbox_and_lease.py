"""The outbox's order and marks, and the lease whose term they carry."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.domain.messages import OutboxEvent
from service.postgres.database import Database
from service.postgres.leader import LeaseStore
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from tests.integration.builders import DAY, NOW, SECOND, Sql, ended, stored

pytestmark = pytest.mark.asyncio


async def due(outbox: Outbox, after_s: int = 0) -> list[tuple[str, int]]:
    """(request, sequence) of what may be published, in order."""
    return [(row.event.request_id, row.event.sequence) for row in await outbox.due(100, NOW + after_s * SECOND)]


async def put_off(outbox: Outbox, request_id: str, sequence: int) -> None:
    """One event could not be published; it waits 10 s."""
    rows = await outbox.due(100, NOW)
    (row_id,) = [r.row_id for r in rows if (r.event.request_id, r.event.sequence) == (request_id, sequence)]
    await outbox.mark_failed([(row_id, NOW + 10 * SECOND)])


async def test_an_event_that_waits_holds_back_its_successors_and_nobody_else(
    store: RequestStore, outbox: Outbox
) -> None:
    await ended(store, "r-1")
    await ended(store, "r-2")
    await put_off(outbox, "r-1", 2)
    assert await due(outbox) == [("r-1", 1), ("r-2", 1), ("r-2", 2), ("r-2", 3)]
    assert ("r-1", 3) in await due(outbox, after_s=10)


async def test_a_back_off_is_counted_on_the_event_itself(store: RequestStore, outbox: Outbox) -> None:
    await stored(store, "r-1")
    await put_off(outbox, "r-1", 1)
    assert await due(outbox, after_s=9) == []
    (row,) = await outbox.due(1, NOW + 10 * SECOND)
    assert row.failures == 1


async def test_a_rejection_that_waits_holds_back_no_request_of_the_same_id(store: RequestStore, outbox: Outbox) -> None:
    """A rejected message reserves nothing, so its id may come again and live while its answer waits."""
    answer = OutboxEvent(
        str(UUID(int=1)), "r-1", 1, "generation.rejected", "generation.rejected", b"{}", terminal=True, stored=False
    )
    await store.insert_answers([answer], NOW)
    (row,) = await outbox.due(1, NOW)
    await outbox.mark_failed([(row.row_id, NOW + 10 * SECOND)])
    await ended(store, "r-1")
    assert await due(outbox) == [("r-1", 1), ("r-1", 2), ("r-1", 3)]


async def test_the_oldest_events_come_first_up_to_the_limit(store: RequestStore, outbox: Outbox) -> None:
    await stored(store, "r-3", "r-1", "r-2")
    assert [row.event.request_id for row in await outbox.due(2, NOW)] == ["r-3", "r-1"]
    assert await outbox.backlog(2) == 2
    assert await outbox.backlog(100) == 3


async def test_what_is_marked_in_the_present_term_is_not_due_again(
    store: RequestStore, outbox: Outbox, lease: LeaseStore
) -> None:
    await stored(store, "r-1", "r-2")
    term = await lease.take(60)
    assert term is not None
    rows = await outbox.due(10, NOW)
    assert await outbox.mark_published([rows[0].row_id], term) == 1
    assert await due(outbox) == [("r-2", 1)]
    assert await outbox.mark_published([rows[0].row_id], term) == 0


@pytest.mark.parametrize("off", [-1, 1])
async def test_a_mark_of_any_other_term_is_not_written(
    store: RequestStore, outbox: Outbox, lease: LeaseStore, off: int
) -> None:
    await stored(store, "r-1")
    term = await lease.take(60)
    assert term is not None
    (row,) = await outbox.due(10, NOW)
    assert await outbox.mark_published([row.row_id], term + off) == 0
    assert await due(outbox) == [("r-1", 1)]


async def test_a_former_leader_marks_nothing_once_another_leads(
    store: RequestStore, outbox: Outbox, database: Database, lease: LeaseStore
) -> None:
    await stored(store, "r-1")
    term = await lease.take(0.0)
    assert term is not None
    assert await LeaseStore(database, "second").take(60) == term + 1
    (row,) = await outbox.due(10, NOW)
    assert await outbox.mark_published([row.row_id], term) == 0


# -- the lease ----------------------------------------------------------------------------------------------------


async def test_a_renewal_keeps_the_term(lease: LeaseStore) -> None:
    assert [await lease.take(60) for _ in range(3)] == [1, 1, 1]


async def test_another_replica_is_refused_while_the_lease_holds(database: Database, lease: LeaseStore) -> None:
    assert await lease.take(60) == 1
    assert await LeaseStore(database, "second").take(60) is None
    assert await lease.take(60) == 1


async def test_a_lease_that_ran_out_goes_to_the_next_with_a_higher_term(database: Database, lease: LeaseStore) -> None:
    second = LeaseStore(database, "second")
    assert await lease.take(6, NOW) == 1
    assert await second.take(6, NOW + 5.9 * SECOND) is None
    assert await second.take(6, NOW + 6 * SECOND) == 2
    assert await lease.take(6, NOW + 7 * SECOND) is None


async def test_a_holder_that_comes_late_but_first_keeps_its_term(lease: LeaseStore) -> None:
    assert await lease.take(6, NOW) == 1
    assert await lease.take(6, NOW + DAY) == 1


async def test_a_lease_that_was_given_back_is_free_at_once(database: Database, lease: LeaseStore) -> None:
    await lease.take(60)
    await LeaseStore(database, "second").give_back()
    assert await LeaseStore(database, "second").take(60) is None
    await lease.give_back()
    assert await LeaseStore(database, "second").take(60) == 2


@pytest.mark.parametrize("begun", [False, True])
async def test_of_ten_who_reach_for_the_lease_at_once_exactly_one_gets_it(
    database: Database, lease: LeaseStore, begun: bool
) -> None:
    if begun:
        await lease.take(0.0)
    terms = await asyncio.gather(*(LeaseStore(database, f"replica-{number}").take(60) for number in range(10)))
    assert [term for term in terms if term is not None] == [2 if begun else 1]


async def test_lanes_have_leases_of_their_own(database: Database, lease: LeaseStore) -> None:
    await lease.take(60)
    assert await LeaseStore(database, "second", lane="another").take(60) == 1


async def test_all_replicas_learn_since_when_the_stream_is_open_from_its_leader_alone(
    database: Database, store: RequestStore, lease: LeaseStore, sql: Sql
) -> None:
    term = await lease.take(60)
    assert term is not None
    await LeaseStore(database, "second").note_stream_opened(NOW + DAY, term)
    await lease.note_stream_opened(NOW + DAY, term - 1)
    assert await store.heard_of([]) == (None, [])
    await lease.note_stream_opened(NOW, term)
    assert await store.heard_of([]) == (NOW, [])
    await lease.take(60)
    assert (await store.heard_of([]))[0] == NOW
    await sql.execute("update leadership set expires_at = '-infinity'")
    await LeaseStore(database, "second").take(60)
    assert await store.heard_of([]) == (None, [])
