"""Decisions: written once, under the version they were made from, with their outputs and events or not at all."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.domain.facts import HubAccepted, OutcomeUnknown
from service.domain.messages import Cancel, OutboxEvent
from service.domain.states import OutputStatus, RequestState
from service.postgres import database
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from tests.integration.builders import (
    DAY,
    NOW,
    SECOND,
    Decided,
    Sql,
    accepted_by_hub,
    claimed,
    decided,
    ended,
    failed,
    new_request,
    stale,
    stored,
    submitted,
    succeeded,
)

pytestmark = pytest.mark.asyncio


async def names(outbox: Outbox, request_id: str) -> list[str]:
    """The events of a request, in the order in which the relay meets them."""
    rows = await outbox.due(1000, NOW + DAY)
    return [row.event.type.removeprefix("generation.") for row in rows if row.event.request_id == request_id]


async def test_a_decision_is_written_with_its_outputs_and_events(store: RequestStore, outbox: Outbox) -> None:
    (request,) = await claimed(store, "r-1")
    assert await store.apply([decided(request, accepted_by_hub("r-1"))], NOW) == {"r-1"}
    after = (await store.load(["r-1"]))["r-1"]
    assert (after.state, after.version, after.sequence, after.submitted_at) == (RequestState.SUBMITTED, 3, 2, NOW)
    assert [output.generation_id for output in after.outputs] == ["g-r-1-0"]
    assert await names(outbox, "r-1") == ["accepted", "submitted"]


async def test_a_decision_about_an_older_version_writes_nothing_at_all(
    store: RequestStore, outbox: Outbox, sql: Sql
) -> None:
    (request,) = await claimed(store, "r-1")
    assert await store.apply([decided(stale(request), accepted_by_hub("r-1"))], NOW) == set()
    assert (await store.load(["r-1"]))["r-1"] == request
    assert await names(outbox, "r-1") == ["accepted"]
    assert await sql.fetchval("select count(*) from outputs") == 0


async def test_one_lost_race_does_not_hold_up_the_other_decisions_of_a_batch(
    store: RequestStore, outbox: Outbox
) -> None:
    first, second = await claimed(store, "r-1", "r-2")
    decisions = [decided(stale(first), accepted_by_hub("r-1")), decided(second, accepted_by_hub("r-2"))]
    assert await store.apply(decisions, NOW) == {"r-2"}
    assert await names(outbox, "r-1") == ["accepted"]
    assert await names(outbox, "r-2") == ["accepted", "submitted"]


async def test_the_same_decision_twice_is_written_once(store: RequestStore, outbox: Outbox) -> None:
    (request,) = await submitted(store, "r-1")
    decision = decided(request, succeeded("g-r-1-0"))
    written = await asyncio.gather(*(store.apply([decision], NOW) for _ in range(8)))
    assert sorted(map(len, written)) == [0] * 7 + [1]
    assert await names(outbox, "r-1") == ["accepted", "submitted", "succeeded"]


async def test_the_events_of_one_decision_keep_their_order_among_many(store: RequestStore, outbox: Outbox) -> None:
    ids = [f"r-{number:03}" for number in range(100)]
    requests = await submitted(store, *ids, outputs=4)
    facts = {r.request_id: [succeeded(str(output.generation_id)) for output in r.outputs] for r in requests}
    await store.apply([decided(request, *facts[request.request_id]) for request in requests], NOW)
    for request_id in ids:
        assert await names(outbox, request_id) == ["accepted", "submitted", *["output"] * 4, "succeeded"]


async def test_an_output_that_has_ended_is_never_reopened_or_rewritten(store: RequestStore, sql: Sql) -> None:
    (request,) = await submitted(store, "r-1", outputs=2)
    await store.apply([decided(request, succeeded("g-r-1-0", "https://files.test/first.mp4"))], NOW)
    # Somebody with the present version, but with outputs that were read before:
    forged = decided(request, failed("g-r-1-0"))
    await sql.execute("update requests set version = $1, sequence = 2", request.version)
    await sql.execute("delete from outbox where sequence > 2")
    await sql.execute("delete from unpublished where sequence > 2")
    assert await store.apply([forged], NOW + SECOND) == {"r-1"}
    after = (await store.load(["r-1"]))["r-1"]
    assert after.outputs[0].status is OutputStatus.SUCCEEDED
    assert after.outputs[0].url == "https://files.test/first.mp4"
    assert await sql.fetchval("select ended_at from outputs where generation_id = 'g-r-1-0'") == NOW


async def test_a_generation_that_belongs_to_another_request_is_not_taken_from_it(store: RequestStore) -> None:
    await submitted(store, "r-1")
    (thief,) = await claimed(store, "r-2")
    await store.apply([decided(thief, HubAccepted(("g-r-1-0",)), failed("g-r-1-0"))], NOW)
    owners = await store.load_owners(["g-r-1-0"])
    assert list(owners) == ["r-1"]
    assert owners["r-1"].outputs[0].status is OutputStatus.QUEUED


async def test_writers_with_the_same_requests_in_opposite_orders_never_embrace(store: RequestStore) -> None:
    ids = [f"r-{number:03}" for number in range(300)]
    for _ in range(6):
        await _race(store, ids)
        ids = [f"{request_id}x" for request_id in ids]


async def _race(store: RequestStore, ids: list[str]) -> None:
    requests = await claimed(store, *ids)
    decisions: list[Decided] = [decided(request, OutcomeUnknown("cut off")) for request in requests]
    # A deadlock would come out as DatabaseUnavailableError after a second.
    written = await asyncio.gather(store.apply(decisions, NOW), store.apply(decisions[::-1], NOW))
    assert set.union(*written) == set(ids)
    assert not set.intersection(*written)


async def test_owners_come_with_all_of_their_outputs_and_strangers_are_left_out(store: RequestStore) -> None:
    await submitted(store, "r-1", outputs=3)
    await submitted(store, "r-2")
    owners = await store.load_owners(["g-r-1-2", "somebody-else's"])
    assert list(owners) == ["r-1"]
    assert [output.index for output in owners["r-1"].outputs] == [0, 1, 2]


async def test_only_what_the_hub_has_not_ended_is_in_flight(store: RequestStore) -> None:
    await submitted(store, "open", outputs=2)
    await ended(store, "over")
    await stored(store, new_request("abroad", target_namespace="team"))
    (item,) = await store.claim(1, "first", 30, NOW)
    await store.apply([decided(item.request, accepted_by_hub("abroad"))], NOW + 5 * SECOND)
    in_flight = {part.namespace: sorted(part.generation_ids) for part in await store.in_flight()}
    assert in_flight == {None: ["g-open-0", "g-open-1"], "team": ["g-abroad-0"]}


async def test_what_is_in_flight_is_read_in_parts_and_none_is_left_out(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ROWS_AT_ONCE", 2)
    await submitted(store, "many", outputs=3)
    await submitted(store, "more", outputs=2)
    (part,) = await store.in_flight()
    assert sorted(part.generation_ids) == ["g-many-0", "g-many-1", "g-many-2", "g-more-0", "g-more-1"]


async def test_what_the_stream_said_before_the_ids_were_stored_is_remembered_once(store: RequestStore) -> None:
    early = succeeded("g-r-1-0", "https://files.test/early.mp4")
    await store.insert_orphans([early, succeeded("not-ours")], NOW)
    await store.insert_orphans([failed("g-r-1-0")], NOW)
    assert await store.heard_of(["g-r-1-0", "g-r-1-1"]) == (None, [early])
    assert await store.matched_orphans(10) == []


async def test_an_orphan_whose_generation_was_stored_meanwhile_is_matched_until_it_is_settled(
    store: RequestStore,
) -> None:
    early = failed("g-r-1-0")
    await store.insert_orphans([early, succeeded("not-ours")], NOW)
    (request,) = await submitted(store, "r-1")
    assert await store.matched_orphans(10) == [early]
    await store.apply([decided(request, early)], NOW)
    assert await store.matched_orphans(10) == []


@pytest.mark.parametrize(("ago", "left"), [(1, 0), (-1, 1)])
async def test_a_request_goes_with_all_that_belongs_to_it_once_it_is_old(
    store: RequestStore, sql: Sql, ago: int, left: int
) -> None:
    await ended(store, "r-1")
    await submitted(store, "working")
    await sql.execute("delete from unpublished")
    assert await store.delete_old("delete_ended_requests", NOW + ago * SECOND, 10) == 1 - left
    assert len(await store.known(["r-1", "working"])) == 1 + left
    assert await sql.fetchval("select count(*) from outputs where request_id = 'r-1'") == left
    assert await sql.fetchval("select count(*) from outbox where request_id = 'r-1'") == 3 * left


async def test_an_id_may_come_again_once_its_request_is_gone(store: RequestStore, sql: Sql) -> None:
    await ended(store, "r-1")
    await sql.execute("delete from unpublished")
    await store.delete_old("delete_ended_requests", NOW + SECOND, 10)
    assert await stored(store, "r-1") == {"r-1"}


async def test_a_request_with_something_left_to_tell_stays_however_old_it_is(store: RequestStore, sql: Sql) -> None:
    await ended(store, "r-1")
    await sql.execute("delete from unpublished where sequence < 3")
    assert await store.delete_old("delete_ended_requests", NOW + DAY, 10) == 0


async def test_what_goes_with_no_request_goes_by_its_own_age_once_it_is_published(
    store: RequestStore, sql: Sql
) -> None:
    await ended(store, "r-1")
    await store.repeat_ends([Cancel("r-1")], NOW)
    answer = OutboxEvent(str(UUID(int=1)), "bad", 1, "k", "k", b"{}", terminal=True, stored=False)
    await store.insert_answers([answer, answer], NOW)
    await sql.execute("delete from unpublished where row_id < (select max(row_id) from unpublished)")
    assert await store.delete_old("delete_old_answers", NOW, 10) == 0
    assert await store.delete_old("delete_old_answers", NOW + SECOND, 1) == 1
    assert await store.delete_old("delete_old_answers", NOW + SECOND, 10) == 1
    left = await sql.fetch("select request_id, sequence from outbox order by row_id")
    assert [tuple(row) for row in left] == [("r-1", 1), ("r-1", 2), ("r-1", 3), ("bad", 1)]


async def test_orphans_go_by_their_own_age(store: RequestStore, sql: Sql) -> None:
    await store.insert_orphans([succeeded("old")], NOW)
    await store.insert_orphans([succeeded("new")], NOW + SECOND)
    assert await store.delete_old("delete_old_orphans", NOW + SECOND, 10) == 1
    assert [row[0] for row in await sql.fetch("select generation_id from orphan_events")] == ["new"]
