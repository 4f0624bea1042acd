"""The sandbox's faults of what was accepted: generations lost, cancelled, hidden, without end; lists, gets and deletes
that fail or do not tell everything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.sandbox import SandboxOptions
from tests.conformance.caller import LTX, Caller, calling

pytestmark = pytest.mark.asyncio


async def listed(caller: Caller, query: str = "") -> list[str]:
    """The ids that a list shows, of which there are as many as it counts."""
    answer = (await caller.call("GET", "/api/ai/queue" + query)).json
    ids = [generation["generation_id"] for generation in answer["generations"]]
    assert answer["count"] == len(ids)
    return ids


async def meddle(caller: Caller, how: str, selection: object) -> list[str]:
    """Cancel or forget generations; the ids to which it happened."""
    answer = await caller.call("POST", f"/sandbox/generations/{how}", selection)
    assert answer.status == 200, answer.text
    ids: list[str] = answer.json["generation_ids"]
    return ids


async def entries(caller: Caller) -> dict[str, dict[str, Any]]:
    """The ledger's entries by id."""
    return {entry["generation_id"]: entry for entry in (await caller.ledger())["generations"]}


# -- forgotten ----------------------------------------------------------------------------------------------------


async def test_a_forgotten_generation_is_unknown_everywhere_but_in_the_ledger(slow: Caller) -> None:
    lost, kept = await slow.post(num_generations=2)
    assert await meddle(slow, "forget", {"generation_ids": [lost]}) == [lost]
    for method in ("GET", "DELETE"):
        answer = await slow.call(method, f"/api/ai/queue/{lost}")
        assert (answer.status, answer.json["status_message"]) == (404, "resource_not_found")
    assert await listed(slow) == await listed(slow, "?status=queued") == [kept]
    assert (await slow.call("GET", "/sandbox/count")).json["active"] == 1
    ledger = await entries(slow)
    assert (ledger[lost]["forgotten"], ledger[kept]["forgotten"]) == (True, False)
    for how in ("forget", "cancel"):  # nothing is left to be done to it
        assert await meddle(slow, how, {"generation_ids": [lost]}) == []


async def test_an_ended_generation_can_be_forgotten_too(swift: Caller) -> None:
    lost, kept = await swift.post(num_generations=2)
    await swift.ended(lost)
    await swift.ended(kept)
    await meddle(swift, "forget", {"generation_ids": [lost]})
    assert await listed(swift, "?status=succeeded") == [kept]
    assert (await entries(swift))[lost]["status"] == "succeeded"


async def test_a_forgotten_generation_never_ends() -> None:
    async with calling(SandboxOptions(delay_s=0.7, render=False)) as caller, caller.listen() as listener:
        [lost] = await caller.post()
        await meddle(caller, "forget", {"count": 1})
        [later] = await caller.post()
        assert (await listener.event())["generation_id"] == later
        assert (await entries(caller))[lost]["ended_at"] is None


async def test_a_blocking_call_does_not_wait_for_what_was_forgotten(slow: Caller) -> None:
    blocked = asyncio.create_task(slow.call("POST", "/api/ai/videos/generate", {"model": LTX, "prompt": "x"}))
    await slow.until(lambda sandbox: bool(sandbox.hub.ledger.active))
    await meddle(slow, "forget", {"count": 1})
    assert (await blocked).status == 422


async def test_generations_can_be_forgotten_as_soon_as_they_have_their_ids(slow: Caller) -> None:
    await slow.set(forgotten=1)
    [lost] = await slow.post()
    await slow.set()
    [kept] = await slow.post()
    assert await listed(slow) == [kept]
    assert (await slow.call("GET", f"/api/ai/queue/{lost}")).status == 404


# -- cancelled by somebody else -----------------------------------------------------------------------------------


async def test_somebody_elses_cancel_ends_a_generation_without_an_event() -> None:
    async with calling(SandboxOptions(delay_s=0.7, render=False)) as caller, caller.listen() as listener:
        first, second, third = await caller.post(num_generations=3)
        assert await meddle(caller, "cancel", {"generation_ids": [second]}) == [second]
        assert await meddle(caller, "cancel", {"count": 1}) == [first]
        assert (await listener.event())["generation_id"] == third
        assert (await caller.get(first))["status"] == (await caller.get(second))["status"] == "cancelled"
        assert await meddle(caller, "cancel", {"generation_ids": [first, third]}) == []


async def test_a_test_in_the_same_process_can_do_it_without_http(slow: Caller) -> None:
    cancelled, lost, kept = await slow.post(num_generations=3)
    slow.sandbox.cancel(cancelled)
    slow.sandbox.forget(lost)
    assert await listed(slow) == [kept]
    assert (await slow.get(cancelled))["status"] == "cancelled"
    assert (await slow.call("GET", f"/api/ai/queue/{lost}")).status == 404


@pytest.mark.parametrize("how", ["cancel", "forget"])
async def test_so_many_of_the_oldest_active_ones_are_chosen(slow: Caller, how: str) -> None:
    ids = [generation_id for _ in range(3) for generation_id in await slow.post()]
    assert await meddle(slow, how, {"count": 2}) == ids[:2]
    assert await meddle(slow, how, {"count": 5}) == ids[2:]


@pytest.mark.parametrize("how", ["cancel", "forget"])
@pytest.mark.parametrize(
    ("selection", "status"),
    [
        ({}, 400),
        ({"count": 1, "generation_ids": []}, 400),
        ({"count": -1}, 400),
        ({"ids": []}, 400),
        ({"generation_ids": ["nobody"]}, 404),
    ],
    ids=str,
)
async def test_a_selection_of_nothing_that_exists_is_refused(
    slow: Caller, how: str, selection: object, status: int
) -> None:
    [generation_id] = await slow.post()
    assert (await slow.call("POST", f"/sandbox/generations/{how}", selection)).status == status
    assert await listed(slow) == [generation_id]


# -- hidden, and without end --------------------------------------------------------------------------------------


async def test_a_hidden_generation_shows_itself_later(slow: Caller) -> None:
    [shown] = await slow.post()
    await slow.set(hidden_s=0.8)
    [hidden] = await slow.post()
    await slow.set()
    assert await listed(slow) == [shown]
    for method in ("GET", "DELETE"):
        assert (await slow.call(method, f"/api/ai/queue/{hidden}")).status == 404
    entry = (await entries(slow))[hidden]
    assert entry["hidden_until"] - entry["posted_at"] == pytest.approx(0.8, abs=0.001)
    async with asyncio.timeout(5):
        while await listed(slow) != [shown, hidden]:
            await asyncio.sleep(0.01)
    assert (await slow.get(hidden))["status"] in {"queued", "processing"}


async def test_the_event_of_a_hidden_generation_is_not_held_back(swift: Caller) -> None:
    await swift.set(hidden_s=600)
    async with swift.listen() as listener:
        [hidden] = await swift.post()
        assert (await listener.event())["generation_id"] == hidden
    assert await listed(swift, "?status=succeeded") == []


async def test_a_generation_without_end_is_processed_until_it_is_cancelled(swift: Caller) -> None:
    await swift.set(never_ending=1)
    [endless] = await swift.post()
    await swift.set()
    async with swift.listen() as listener:
        [later] = await swift.post()
        assert (await listener.event())["generation_id"] == later
    assert (await swift.get(endless))["status"] == "processing"
    assert (await entries(swift))[endless]["never_ending"] is True
    await swift.call("DELETE", f"/api/ai/queue/{endless}")
    assert (await swift.get(endless))["status"] == "cancelled"


async def test_an_early_answer_does_not_wait_for_a_generation_without_end(slow: Caller) -> None:
    await slow.set(events_early=1, never_ending=1, events_early_by_s=0)
    async with asyncio.timeout(5):
        await slow.post()


# -- lists, gets, deletes, models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "method", "path"),
    [
        ("list_status", "GET", "/api/ai/queue"),
        ("get_status", "GET", "/api/ai/queue/{id}"),
        ("delete_status", "DELETE", "/api/ai/queue/{id}"),
        ("models_status", "GET", "/api/ai/models"),
        ("models_status", "GET", "/api/ai/models/" + LTX),
        ("models_status", "GET", "/api/ai/models/search?search=x"),
    ],
)
async def test_a_call_fails_as_it_was_asked_to_and_others_do_not(
    slow: Caller, fault: str, method: str, path: str
) -> None:
    [generation_id] = await slow.post()
    path = path.format(id=generation_id)
    await slow.set(**{fault: 503})
    answer = await slow.call(method, path)
    assert (answer.status, answer.json["status"]) == (503, "error")
    await slow.set(**{fault: 503}, html_bodies=True)
    answer = await slow.call(method, path)
    assert (answer.status, answer.text[:6]) == (503, "<html>")
    await slow.post()
    await slow.set()
    assert (await slow.get(generation_id))["status"] in {"queued", "processing"}
    assert (await slow.call(method, path)).status == 200


@pytest.mark.parametrize(
    ("faults", "count", "shown"),
    [
        ({"list_limit": 2}, 3, 2),
        ({"list_limit": 0}, 3, 0),
        ({"list_limit": 9}, 3, 3),
        ({"list_limit": 2, "list_limit_hidden": True}, 2, 2),
        ({"list_limit": 0, "list_limit_hidden": True}, 0, 0),
    ],
    ids=str,
)
async def test_a_list_can_be_cut_short_and_admit_it_or_not(
    slow: Caller, faults: dict[str, Any], count: int, shown: int
) -> None:
    ids = [generation_id for _ in range(3) for generation_id in await slow.post()]
    await slow.set(**faults)
    answer = (await slow.call("GET", "/api/ai/queue")).json
    assert answer["count"] == count
    assert [generation["generation_id"] for generation in answer["generations"]] == ids[:shown]


async def test_an_ignored_delete_is_answered_with_success_and_the_generation_goes_on() -> None:
    async with calling(SandboxOptions(delay_s=0.5, render=False)) as caller:
        await caller.set(deletes_ignored=1)
        [generation_id] = await caller.post()
        answer = await caller.call("DELETE", f"/api/ai/queue/{generation_id}")
        assert answer.json == {"status": "success", "generation_id": generation_id}
        await caller.ended(generation_id)
        assert (await caller.get(generation_id))["status"] == "succeeded"
