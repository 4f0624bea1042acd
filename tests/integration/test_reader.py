"""What the API and the commands read: requests as they stand, in pages, and what was told of them."""

from __future__ import annotations

import pytest

from service.domain.errors import ErrorCode
from service.domain.messages import Message, OutboxEvent
from service.domain.states import EventName, Fault, OutputStatus, RequestState
from service.postgres.database import Database
from service.postgres.outbox import Outbox
from service.postgres.reader import RequestReader
from service.postgres.store import RequestStore
from service.wire.events import encode_rejected
from tests.integration.builders import DAY, NOW, claimed, ended, hash_of, new_request, stored, submitted

pytestmark = pytest.mark.asyncio


@pytest.fixture
def reader(database: Database) -> RequestReader:
    return RequestReader(database)


def rejected(request_id: str) -> OutboxEvent:
    """The answer to a message that was not accepted."""
    fault = Fault(ErrorCode.INVALID_INPUT, "no")
    return encode_rejected(Message(b"{}"), request_id, fault, NOW, reply_to=None)


async def test_a_request_is_found_with_its_outputs_and_what_its_row_says(
    store: RequestStore, reader: RequestReader
) -> None:
    await submitted(store, "r-1", outputs=2)
    await claimed(store, "r-2")
    found = await reader.find("r-1")
    assert found is not None
    assert (found.request.state, found.request.attempts, found.priority) == (RequestState.SUBMITTED, 1, 4)
    assert (found.deadline, found.attempted_at, found.claimed_by) == (NOW + DAY, NOW, None)
    assert [output.status for output in found.request.outputs] == [OutputStatus.QUEUED] * 2
    assert (found.next_attempt_at, found.doubted_at) == (None, None), "it waits for no time, and is in no doubt"
    held = await reader.find("r-2")
    assert held is not None
    assert (held.request.state, held.claimed_by) == (RequestState.SUBMITTING, "first")
    assert await reader.find("r-3") is None


async def test_pages_go_from_the_newest_to_the_oldest_and_hold_each_request_once(
    store: RequestStore, reader: RequestReader
) -> None:
    for number in range(7):
        if number % 3:
            await ended(store, f"r-{number}")
        else:
            await claimed(store, f"r-{number}")
    seen: list[str] = []
    before = None
    while page := await reader.page(3, before=before):
        assert len(page) <= 3
        seen += [item.request.request_id for item in page]
        before = page[-1].arrival
    assert seen == [f"r-{number}" for number in reversed(range(7))]


async def test_a_page_can_be_of_some_states_alone(store: RequestStore, reader: RequestReader) -> None:
    await ended(store, "old")
    await claimed(store, "held")
    await stored(store, "waits")
    states = {RequestState.ACCEPTED, RequestState.SUBMITTING}
    assert [item.request.request_id for item in await reader.page(9, states=states)] == ["waits", "held"]
    assert await reader.page(9, states={RequestState.IN_DOUBT}) == []


async def test_what_was_told_is_read_in_order_with_what_still_waits_to_be_published(
    store: RequestStore, outbox: Outbox, reader: RequestReader
) -> None:
    await ended(store, "r-1")
    first, *_ = await outbox.due(10, NOW + DAY)
    await outbox.mark_failed([(first.row_id, NOW + DAY)])
    events = await reader.events("r-1")
    assert [event.name for event in events] == [EventName.ACCEPTED, EventName.SUBMITTED, EventName.SUCCEEDED]
    assert [(event.published, event.failures) for event in events] == [(False, 1), (False, 0), (False, 0)]
    assert events[0].next_attempt_at == NOW + DAY


async def test_an_id_that_was_never_accepted_shows_what_its_messages_were_answered(
    store: RequestStore, reader: RequestReader
) -> None:
    await store.insert_answers([rejected("r-1")], NOW)
    assert [(event.name, event.published) for event in await reader.events("r-1")] == [(EventName.REJECTED, False)]
    assert await reader.find("r-1") is None


async def test_what_idempotency_compares_and_a_waiting_cancel_can_be_asked_for(
    store: RequestStore, reader: RequestReader
) -> None:
    await stored(store, new_request("r-1", content="a"))
    await store.keep_early_cancels(["r-2"], NOW)
    assert await reader.content_hash("r-1") == hash_of("a")
    assert await reader.content_hash("r-2") is None
    assert [await reader.early_cancel(name) for name in ("r-1", "r-2")] == [False, True]
    assert await reader.counts() == {RequestState.ACCEPTED: 1}
