"""Stops as they are stored: early cancels, deadlines, what the hub is to end, and ends that are told again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from service.domain.facts import HubAccepted, OutputMissing, OutputReported, StopPending, StopRequested
from service.domain.messages import Cancel
from service.domain.states import InFlight, OutputStatus, RequestState, StopCause
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from tests.integration.builders import (
    DAY,
    LEASE_S,
    NOW,
    SECOND,
    claimed,
    decided,
    ended,
    new_request,
    stored,
    submitted,
    with_event,
)

pytestmark = pytest.mark.asyncio
CANCEL, DEADLINE = StopRequested(StopCause.CANCEL), StopRequested(StopCause.DEADLINE)


async def test_a_request_that_was_cancelled_before_it_came_is_stored_and_never_due(store: RequestStore) -> None:
    await store.keep_early_cancels(["r-1", "other"], NOW)
    news = [with_event(new_request("r-1")), with_event(new_request("r-2"))]
    assert await store.insert(news, NOW) == {"r-1": True, "r-2": False}
    assert [item.request.request_id for item in await store.claim(5, "first", LEASE_S, NOW + DAY / 2)] == ["r-2"]
    assert await store.matched_cancels(10) == ["r-1"]
    assert (await store.pending(NOW)).cancels
    await store.forget_cancels(["r-1"])
    assert await store.matched_cancels(10) == []
    assert not (await store.pending(NOW)).cancels


async def test_a_cancel_is_kept_once_and_met_though_its_request_came_just_before_it(store: RequestStore) -> None:
    await stored(store, "overtook")
    await store.keep_early_cancels(["overtook", "early", "early"], NOW)
    await store.keep_early_cancels(["early"], NOW + SECOND)
    await stored(store, "early")
    assert sorted(await store.matched_cancels(10)) == ["early", "overtook"]


async def test_early_cancels_go_after_a_day_unless_their_request_has_come(store: RequestStore) -> None:
    await store.keep_early_cancels(["old", "met"], NOW)
    await store.keep_early_cancels(["young"], NOW + DAY)
    await stored(store, "met")
    assert await store.delete_old("delete_old_cancels", NOW + SECOND, 10) == 1
    assert await store.matched_cancels(10) == ["met"]
    assert await store.insert([with_event(new_request("old")), with_event(new_request("young"))], NOW) == {
        "old": False,
        "young": True,
    }


async def test_only_what_has_neither_ended_nor_been_stopped_is_overdue(store: RequestStore) -> None:
    await submitted(store, "open", "stopped")
    await ended(store, "over")
    await stored(store, replace(new_request("later"), deadline=NOW + 2 * DAY), "waiting")
    stopped = (await store.load(["stopped"]))["stopped"]
    await store.apply([decided(stopped, CANCEL)], NOW)
    assert await store.overdue(10, NOW) == []
    assert sorted(await store.overdue(10, NOW + DAY)) == ["open", "waiting"]


async def test_a_request_past_its_deadline_is_not_claimed(store: RequestStore) -> None:
    await stored(store, "r-1")
    assert not await store.claim(5, "first", LEASE_S, NOW + DAY)
    assert (await store.pending(NOW + DAY)).stops


async def test_what_is_to_be_ended_at_the_hub_is_found_with_its_outputs_when_it_is_due(store: RequestStore) -> None:
    (request,) = await submitted(store, "r-1", outputs=2)
    await store.apply([decided(request, DEADLINE)], NOW)
    (found,) = await store.stopping(10, NOW)
    assert (found.state, found.stop_cause, found.stop_requested_at) == (
        RequestState.CANCELLING,
        StopCause.DEADLINE,
        NOW,
    )
    assert [output.generation_id for output in found.outputs] == ["g-r-1-0", "g-r-1-1"]
    await store.apply([decided(found, StopPending(NOW + 10 * SECOND))], NOW)
    assert await store.stopping(10, NOW + 9 * SECOND) == []
    assert len(await store.stopping(10, NOW + 10 * SECOND)) == 1


async def test_a_claim_outlives_a_stop_so_that_a_dead_submitter_is_still_noticed(store: RequestStore) -> None:
    (request,) = await claimed(store, "r-1")
    await store.apply([decided(request, CANCEL)], NOW)
    stopping = (await store.load(["r-1"]))["r-1"]
    assert (stopping.state, stopping.stop_cause) == (RequestState.SUBMITTING, StopCause.CANCEL)
    assert await store.expired_claims(10, NOW + timedelta(days=36500)) == [("r-1", 1)]
    await store.apply([decided(stopping, HubAccepted(("g",)))], NOW)
    assert [found.request_id for found in await store.stopping(10, NOW)] == ["r-1"]


async def test_since_when_a_generation_is_missing_is_kept_until_it_is_seen_again(store: RequestStore) -> None:
    (request,) = await submitted(store, "r-1")
    await store.apply([decided(request, OutputMissing("g-r-1-0", NOW, DAY))], NOW)
    assert await store.in_flight() == [InFlight(None, ["g-r-1-0"], ["g-r-1-0"])]
    absent = (await store.load(["r-1"]))["r-1"]
    assert absent.outputs[0].missing_since == NOW
    await store.apply([decided(absent, OutputReported("g-r-1-0", OutputStatus.PROCESSING))], NOW)
    assert await store.in_flight() == [InFlight(None, ["g-r-1-0"], [])]


async def test_a_lost_generation_is_stored_as_lost_and_in_flight_no_more(store: RequestStore) -> None:
    (request,) = await submitted(store, "r-1")
    later = OutputMissing("g-r-1-0", NOW + DAY, DAY)
    await store.apply([decided(request, OutputMissing("g-r-1-0", NOW, DAY), later)], NOW)
    lost = (await store.load(["r-1"]))["r-1"]
    assert (lost.state, lost.outputs[0].lost, lost.outputs[0].status) == (
        RequestState.FAILED,
        True,
        OutputStatus.FAILED,
    )
    assert await store.in_flight() == []


async def test_the_end_of_an_ended_request_is_told_again_to_whom_the_cancel_names(
    store: RequestStore, outbox: Outbox
) -> None:
    await ended(store, "r-1")
    await stored(store, "open")
    first = [row.event for row in await outbox.due(100, NOW + DAY) if row.event.terminal]
    assert await store.repeat_ends([Cancel("r-1", "c", "inbox"), Cancel("open"), Cancel("unknown")], NOW) == {"r-1"}
    again = [row.event for row in await outbox.due(100, NOW + DAY) if row.event.terminal]
    assert [event.event_id for event in again] == [first[0].event_id] * 2
    assert (again[1].reply_to, again[1].correlation_id) == ("inbox", "c")
