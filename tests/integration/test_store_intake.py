"""Storing requests: once each, whatever comes again."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.domain.messages import OutboxEvent, Repeat
from service.domain.states import RequestState
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from tests.integration.builders import NOW, SECOND, Sql, ended, hash_of, new_request, stored, submitted, with_event

pytestmark = pytest.mark.asyncio


def repeat(request_id: str, content: str | None = None, **addresses: str | None) -> Repeat:
    """The same id again."""
    return Repeat(
        request_id, hash_of(content or request_id), addresses.get("correlation_id"), addresses.get("reply_to")
    )


async def events_of(outbox: Outbox, request_id: str) -> list[OutboxEvent]:
    """What waits to be published about a request, in order."""
    return [row.event for row in await outbox.due(100, NOW + 60 * SECOND) if row.event.request_id == request_id]


async def test_a_new_request_is_stored_with_its_first_event(store: RequestStore, outbox: Outbox) -> None:
    new, event = with_event(new_request(seed=2**63 + 1, metadata=b'{"job":1}', reply_to="inbox", correlation_id="c"))
    assert await store.insert([(new, event)], NOW) == {"r-1": False}
    request = (await store.load(["r-1"]))["r-1"]
    assert request == new.request
    assert await events_of(outbox, "r-1") == [event]


async def test_a_known_id_is_left_alone_and_not_announced_again(store: RequestStore, outbox: Outbox) -> None:
    await stored(store, new_request(content="first"))
    assert await stored(store, new_request(content="second", source="team-b"), "r-2") == {"r-2"}
    assert (await store.load(["r-1"]))["r-1"].source == "team-a"
    assert len(await events_of(outbox, "r-1")) == 1


async def test_an_id_that_comes_twice_in_one_call_is_stored_once_as_it_came_first(
    store: RequestStore, outbox: Outbox
) -> None:
    first, second = with_event(new_request(source="first")), with_event(new_request(source="second"))
    assert await store.insert([first, second], NOW) == {"r-1": False}
    assert (await store.load(["r-1"]))["r-1"].source == "first"
    assert [event.event_id for event in await events_of(outbox, "r-1")] == [first[1].event_id]


async def test_requests_of_one_call_keep_their_order(store: RequestStore, outbox: Outbox, sql: Sql) -> None:
    order = ["r-9", "r-1", "r-5"]
    await stored(store, *order)
    assert [row[0] for row in await sql.fetch("select request_id from requests order by arrival")] == order
    assert [row.event.request_id for row in await outbox.due(10, NOW)] == order


async def test_of_replicas_that_store_one_id_at_once_exactly_one_stores_it(store: RequestStore, outbox: Outbox) -> None:
    inserted = await asyncio.gather(*(stored(store, "r-1", f"own-{number}") for number in range(10)))
    assert sum("r-1" in each for each in inserted) == 1
    assert all(f"own-{number}" in each for number, each in enumerate(inserted))
    assert len(await events_of(outbox, "r-1")) == 1


async def test_the_same_content_again_replaces_the_addresses_and_keeps_what_it_does_not_name(
    store: RequestStore,
) -> None:
    await stored(store, new_request(reply_to="old", correlation_id="old"))
    assert await store.repeat([repeat("r-1", reply_to="new")], NOW) == {"r-1"}
    request = (await store.load(["r-1"]))["r-1"]
    assert (request.reply_to, request.correlation_id, request.version) == ("new", "old", 2)
    assert await store.repeat([repeat("r-1", correlation_id="new")], NOW) == {"r-1"}
    request = (await store.load(["r-1"]))["r-1"]
    assert (request.reply_to, request.correlation_id) == ("new", "new")


async def test_other_content_under_a_known_id_is_not_the_same_and_changes_nothing(
    store: RequestStore, outbox: Outbox
) -> None:
    before = await ended(store, "r-1")
    told = await events_of(outbox, "r-1")
    assert await store.repeat([repeat("r-1", "another", reply_to="new"), repeat("unknown")], NOW) == set()
    assert (await store.load(["r-1"]))["r-1"] == before
    assert await events_of(outbox, "r-1") == told


async def test_content_that_could_not_be_read_is_never_the_same(store: RequestStore) -> None:
    await stored(store, "r-1")
    assert await store.repeat([Repeat("r-1", None, None, None)], NOW) == set()


async def test_a_repeat_of_an_ended_request_sends_its_terminal_event_again_under_the_same_id(
    store: RequestStore, outbox: Outbox
) -> None:
    await ended(store, "r-1")
    terminal = (await events_of(outbox, "r-1"))[-1]
    assert await store.repeat([repeat("r-1", reply_to="inbox", correlation_id="again")], NOW) == {"r-1"}
    again = (await events_of(outbox, "r-1"))[-1]
    assert again.event_id == terminal.event_id
    assert (again.body, again.sequence, again.terminal) == (terminal.body, terminal.sequence, True)
    assert (again.reply_to, again.correlation_id) == ("inbox", "again")


async def test_each_further_repeat_of_an_ended_request_sends_one_event_more(
    store: RequestStore, outbox: Outbox
) -> None:
    await ended(store, "r-1")
    for _ in range(3):
        await store.repeat([repeat("r-1")], NOW)
    told = await events_of(outbox, "r-1")
    assert [event.sequence for event in told] == [1, 2, 3, 3, 3, 3]
    assert len({event.event_id for event in told}) == 3


async def test_a_repeat_while_the_work_goes_on_sends_nothing(store: RequestStore, outbox: Outbox) -> None:
    await submitted(store, "r-1")
    before = len(await events_of(outbox, "r-1"))
    assert await store.repeat([repeat("r-1")], NOW) == {"r-1"}
    assert len(await events_of(outbox, "r-1")) == before
    assert (await store.load(["r-1"]))["r-1"].state is RequestState.SUBMITTED


async def test_only_stored_ids_are_known(store: RequestStore) -> None:
    await stored(store, "r-1")
    assert await store.known(["r-1", "r-2"]) == {"r-1"}


async def test_answers_to_messages_that_were_not_accepted_may_name_the_same_id_many_times(
    store: RequestStore, outbox: Outbox
) -> None:
    answer = OutboxEvent(
        str(UUID(int=1)), "r-1", 1, "generation.rejected", "generation.rejected", b"{}", terminal=True, stored=False
    )
    await store.insert_answers([answer, answer], NOW)
    await stored(store, "r-1")
    assert [event.stored for event in await events_of(outbox, "r-1")] == [False, False, True]
