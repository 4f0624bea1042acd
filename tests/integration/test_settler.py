"""Settlers that contradict each other, and what the leading one remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from service.clock import utc_now
from service.domain.facts import Fact, HubAccepted, OutcomeUnknown, OutputReported
from service.domain.states import Request, RequestState
from service.postgres.database import Database
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from service.telemetry import Metrics
from service.workers.settler import Case, Elsewhere, Settler
from service.workers.wakeups import Wakeups
from tests.integration.builders import (
    accepted_by_hub,
    claimed,
    decided,
    failed,
    submitted,
    succeeded,
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def settler(store: RequestStore, outbox: Outbox) -> Settler:
    """A replica's settler."""
    return Settler(store, outbox, Wakeups(), Metrics(), elsewhere=Elsewhere(outbox))


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


async def test_the_relay_is_told_of_ends_apart(store: RequestStore, outbox: Outbox) -> None:
    wakeups = Wakeups()
    settler = Settler(store, outbox, wakeups, Metrics(), elsewhere=Elsewhere(outbox))
    (request,) = await claimed(store, "r-1")
    await settler.settle([Case("r-1", [HubAccepted(("g-r-1-0",))], request)])
    assert (wakeups.events.is_set(), wakeups.ends.is_set()) == (True, False)
    await settler.settle_reports([succeeded("g-r-1-0")])
    assert wakeups.ends.is_set()


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
