"""The sandbox's faults of a POST, and what its ledger tells of them."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import aiohttp
import pytest

from service.sandbox import Sandbox, SandboxOptions
from tests.conformance.caller import LTX, STILL, Answer, Caller, calling

pytestmark = pytest.mark.asyncio

BODY = {"model": LTX, "prompt": "x"}


async def submit(caller: Caller) -> Answer:
    """One POST, whatever comes of it."""
    return await caller.call("POST", "/api/ai/queue", BODY)


async def last_post(caller: Caller) -> dict[str, Any]:
    """What the ledger tells of the latest POST."""
    post: dict[str, Any] = (await caller.ledger())["posts"][-1]
    return post


def fates(sandbox: Sandbox) -> list[str]:
    return [post["fate"] for post in sandbox.ledger()["posts"]]


# -- nothing accepted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, "3", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_a_limited_post_is_answered_429_with_the_header_that_was_asked_for(
    slow: Caller, retry_after: str | None
) -> None:
    await slow.set(posts_limited=1, retry_after=retry_after)
    async with slow.session.post(slow.sandbox.url + "/api/ai/queue", json=BODY, headers=slow.key) as response:
        assert response.status == 429
        assert response.headers.get("Retry-After") == retry_after
        assert (await response.json())["status"] == "error"
    assert (await slow.ledger())["generations"] == []


@pytest.mark.parametrize("status", [503, 500])
async def test_a_retry_after_comes_with_503_and_not_with_other_errors(slow: Caller, status: int) -> None:
    await slow.set(post_status=status, retry_after="7")
    async with slow.session.post(slow.sandbox.url + "/api/ai/queue", json=BODY, headers=slow.key) as response:
        assert response.headers.get("Retry-After") == ("7" if status == 503 else None)


async def test_a_failed_post_is_a_proxys_page_and_accepts_nothing(slow: Caller) -> None:
    await slow.set(posts_failed=1)
    answer = await submit(slow)
    assert (answer.status, answer.json) == (502, None)
    assert answer.text.startswith("<html>")
    post = await last_post(slow)
    assert (post["fate"], post["fault"], post["status"]) == ("refused", "posts_failed", 502)
    assert (await slow.ledger())["generations"] == []


@pytest.mark.parametrize("kind", ["invalid_params", "unauthenticated"])
async def test_an_empty_list_with_an_error_is_answered_200(slow: Caller, kind: str) -> None:
    await slow.set(posts_empty=1, posts_empty_type=kind)
    answer = await submit(slow)
    assert (answer.status, answer.json["generations"], answer.json["error"]["type"]) == (200, [], kind)
    assert (await slow.ledger())["generations"] == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "unauthenticated"), (402, "unknown_error"), (404, "resource_not_found")]
)
async def test_a_post_status_comes_in_the_hubs_shape_or_as_somebody_elses_page(
    slow: Caller, status: int, kind: str
) -> None:
    await slow.set(post_status=status)
    answer = await submit(slow)
    assert (answer.status, answer.json["error"]["type"]) == (status, kind)
    await slow.set(post_status=status, html_bodies=True)
    answer = await submit(slow)
    assert (answer.status, answer.json) == (status, None)
    assert answer.text.startswith("<html>")


async def test_a_hung_post_is_taken_and_neither_accepted_nor_answered(slow: Caller) -> None:
    await slow.set(posts_hung=1)
    posting = asyncio.create_task(submit(slow))
    await slow.until(lambda sandbox: fates(sandbox) == ["hung"])
    assert not posting.done()
    await slow.set()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await posting
    assert (await last_post(slow))["generation_ids"] == []
    assert (await slow.ledger())["generations"] == []


# -- accepted -----------------------------------------------------------------------------------------------------


async def test_a_hung_answer_belongs_to_an_accepted_generation_and_is_cut_when_the_faults_are_replaced(
    slow: Caller,
) -> None:
    await slow.set(answers_hung=1)
    posting = asyncio.create_task(submit(slow))
    await slow.until(lambda sandbox: fates(sandbox) == ["hung"])
    assert not posting.done()
    ledger = await slow.ledger()
    assert ledger["posts"][0]["generation_ids"] == [ledger["generations"][0]["generation_id"]]
    await slow.set()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await posting
    await slow.post()


@pytest.mark.parametrize("fault", ["answers_hung", "posts_hung"])
async def test_a_stop_does_not_wait_for_calls_that_hang(fault: str) -> None:
    sandbox = Sandbox(SandboxOptions(delay_s=600, render=False))
    await sandbox.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(sandbox, session)
        await caller.set(**{fault: 1})
        posting = asyncio.create_task(submit(caller))
        await caller.until(lambda sandbox: fates(sandbox) == ["hung"])
        before = time.monotonic()
        await sandbox.stop()
        assert time.monotonic() - before < 0.9  # aiohttp's own patience with handlers is a second
        with pytest.raises(aiohttp.ClientError):
            await posting


async def test_a_lost_answer_belongs_to_an_accepted_generation(slow: Caller) -> None:
    await slow.set(answers_lost=1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await submit(slow)
    ledger = await slow.ledger()
    [post], [generation] = ledger["posts"], ledger["generations"]
    assert (post["fate"], post["status"]) == ("lost", None)
    assert post["generation_ids"] == [generation["generation_id"]]


async def test_a_post_that_fails_late_is_a_proxys_page_over_an_accepted_generation(slow: Caller) -> None:
    await slow.set(posts_failed_late=1)
    answer = await submit(slow)
    assert (answer.status, answer.json) == (502, None)
    ledger = await slow.ledger()
    [post], [generation] = ledger["posts"], ledger["generations"]
    assert (post["fate"], post["status"]) == ("failed_late", 502)
    assert post["generation_ids"] == [generation["generation_id"]]


async def test_an_early_completion_fires_before_its_post_is_answered(slow: Caller) -> None:
    await slow.set(events_early=1, events_early_by_s=0.7)
    async with slow.listen() as listener:
        posting = asyncio.create_task(slow.post(num_generations=2))
        events = [await listener.event(), await listener.event()]
        assert not posting.done()
        assert await posting == [event["generation_id"] for event in events]
    ledger = await slow.ledger()
    assert ledger["posts"][0]["answered_at"] - ledger["generations"][0]["ended_at"] > 0.65
    await slow.set()
    async with asyncio.timeout(5):
        await slow.post()  # neither early nor late


async def test_an_early_completion_waits_for_its_rendering(cinema: Caller) -> None:
    await cinema.set(events_early=1, events_early_by_s=0)
    [generation_id] = await cinema.post(model=STILL, image_size={"width": 64, "height": 64})
    await cinema.set()
    assert (await cinema.get(generation_id))["status"] == "succeeded"


# -- the ledger of POSTs ------------------------------------------------------------------------------------------


async def test_the_ledger_tells_of_each_post_what_its_client_was_told(slow: Caller) -> None:
    ids = await slow.post(prompt="a heron", num_generations=2)
    await slow.call("POST", "/api/ai/queue", {"model": "no-such-model", "prompt": "an egret"})
    await slow.call("POST", "/api/ai/queue", b"{", Content_Type="application/json")
    answered, unknown, broken = (await slow.ledger())["posts"]
    assert abs(answered["at"] - time.time()) < 5
    assert answered["at"] <= answered["answered_at"] <= unknown["at"]
    assert {name: answered[name] for name in ("prompt", "generation_ids", "fate", "fault", "status")} == {
        "prompt": "a heron",
        "generation_ids": ids,
        "fate": "answered",
        "fault": None,
        "status": 200,
    }
    assert (unknown["prompt"], unknown["fate"], unknown["status"]) == ("an egret", "refused", 404)
    assert (broken["prompt"], broken["fate"], broken["status"]) == (None, "refused", 400)


async def test_the_ledger_tells_of_a_client_that_went_before_its_answer(slow: Caller) -> None:
    await slow.set(answer_delay_s=600)
    posting = asyncio.create_task(submit(slow))
    await slow.until(lambda sandbox: fates(sandbox) == ["open"])
    await slow.until(lambda sandbox: len(sandbox.ledger()["generations"]) == 1)
    posting.cancel()
    await slow.until(lambda sandbox: fates(sandbox) == ["gone"])
    post = await last_post(slow)
    assert (len(post["generation_ids"]), post["status"]) == (1, None)


# -- chance -------------------------------------------------------------------------------------------------------


async def struck(seed: int | None, **faults: object) -> list[str]:
    """The fates of 64 POSTs, one after another, in a sandbox of that seed."""
    async with calling(SandboxOptions(delay_s=600, render=False, seed=seed)) as caller:
        await caller.set(**faults)
        for _ in range(64):
            await submit(caller)
        return fates(caller.sandbox)


async def test_a_seed_repeats_what_is_struck() -> None:
    first = await struck(7, posts_failed_late=0.5)
    assert set(first) == {"answered", "failed_late"}
    assert await struck(7, posts_failed_late=0.5) == first
    assert await struck(8, posts_failed_late=0.5) != first


async def test_one_fault_does_not_shift_where_another_strikes() -> None:
    alone = await struck(7, posts_failed_late=0.5)
    beside = await struck(7, posts_failed_late=0.5, events_early=0.5, events_early_by_s=0)
    assert beside == alone


async def test_faults_of_the_same_probability_strike_at_different_times() -> None:
    late = [fate == "answered" for fate in await struck(7, posts_failed_late=0.5)]
    at_once = [fate == "answered" for fate in await struck(7, posts_failed=0.5)]
    assert late != at_once


async def test_the_ledger_tells_the_seed_and_how_often_each_fault_struck() -> None:
    async with calling(SandboxOptions(delay_s=600, render=False)) as caller:
        await caller.set(posts_failed=0.5)
        for _ in range(64):
            await submit(caller)
        ledger = await caller.ledger()
    drawn = [post["fate"] for post in ledger["posts"]]
    assert ledger["strikes"] == {"posts_failed": drawn.count("refused")}
    assert await struck(ledger["seed"], posts_failed=0.5) == drawn


async def test_the_command_takes_a_seed() -> None:
    command = ("-m", "service", "sandbox", "--port", "0", "--no-render", "--seed", "7")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        async with aiohttp.ClientSession() as session, session.get(url + "/sandbox/ledger") as response:
            assert (await response.json())["seed"] == 7
    finally:
        process.terminate()
        await process.wait()
