"""The sandbox's event stream and its result URLs."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from service.sandbox import Sandbox, SandboxOptions
from tests.conformance.caller import LTX, STILL, Caller, calling

pytestmark = pytest.mark.asyncio


# -- the event stream ---------------------------------------------------------------------------------------------


async def test_a_success_is_told_once_with_model_and_url(swift: Caller) -> None:
    async with swift.listen() as listener:
        assert listener.response.content_type == "text/event-stream"
        first, second = await swift.post(num_generations=2)
        events = [await listener.event(), await listener.event()]
    assert [event["generation_id"] for event in events] == [first, second]
    assert events[0] == {
        "generation_id": first,
        "status": "succeeded",
        "media_type": "video",
        "model": LTX,
        "url": events[0]["url"],
    }
    assert events[0]["url"].startswith(f"{swift.sandbox.url}/results/{first}.mp4?expires=")


async def test_a_failure_is_told_with_neither_model_nor_url(swift: Caller) -> None:
    async with swift.listen() as listener:
        [generation_id] = await swift.post(model=STILL, prompt="[fail]")
        event = await listener.event()
    assert set(event) == {"generation_id", "status", "media_type", "error"}
    assert (event["generation_id"], event["status"], event["media_type"]) == (generation_id, "failed", "image")


async def test_an_event_is_two_lines_of_text_without_blanks_in_the_json(swift: Caller) -> None:
    async with swift.listen() as listener:
        [generation_id] = await swift.post()
        name, data = (await listener.frame()).split("\n")
    assert name == "event: media_generation_completed"
    assert data.startswith(f'data: {{"generation_id":"{generation_id}","status":')


async def test_who_sees_the_event_finds_the_generation_ended(swift: Caller) -> None:
    async with swift.listen() as listener:
        [generation_id] = await swift.post()
        await listener.event()
        assert (await swift.get(generation_id))["status"] == "succeeded"


async def test_every_listener_hears_every_event(swift: Caller) -> None:
    async with swift.listen() as one, swift.listen() as other:
        await swift.post()
        assert await one.event() == await other.event()


async def test_what_fired_before_is_never_repeated(swift: Caller) -> None:
    await swift.end()
    async with swift.listen() as listener:
        [later] = await swift.post()
        assert (await listener.event())["generation_id"] == later


async def test_a_cancelled_generation_sends_no_event() -> None:
    async with calling(SandboxOptions(delay_s=0.3, render=False)) as caller, caller.listen() as listener:
        [cancelled] = await caller.post()
        await caller.call("DELETE", f"/api/ai/queue/{cancelled}")
        # Due after the cancelled one, so its event would come after that one's, were there any.
        [later] = await caller.post()
        assert (await listener.event())["generation_id"] == later


async def test_silence_is_filled_with_comments() -> None:
    async with calling(SandboxOptions(keep_alive_s=0.05, render=False)) as caller, caller.listen() as listener:
        assert [await listener.frame() for _ in range(3)] == [": keep-alive"] * 3


async def test_the_keep_alive_is_every_15_seconds_and_nothing_is_sent_at_the_start(slow: Caller) -> None:
    assert SandboxOptions().keep_alive_s == 15.0
    async with slow.listen() as listener:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await listener.frame()


async def test_streams_that_are_cut_break_off_and_the_hub_forgets_them(slow: Caller) -> None:
    async with slow.listen() as one, slow.listen() as other:
        answer = await slow.call("POST", "/sandbox/streams/cut")
        assert answer.json == {"cut": 2}
        for listener in (one, other):
            with pytest.raises(aiohttp.ClientError):
                await listener.frame()
    await slow.until(lambda sandbox: sandbox.ledger()["streams"] == 0)
    assert slow.sandbox.ledger()["peak_streams"] == 2


async def test_a_listener_that_leaves_is_forgotten_without_waiting_for_a_keep_alive(slow: Caller) -> None:
    async with slow.listen():
        assert slow.sandbox.ledger()["streams"] == 1
    await slow.until(lambda sandbox: sandbox.ledger()["streams"] == 0, slow.sandbox.options.keep_alive_s / 3)


# -- result URLs --------------------------------------------------------------------------------------------------


async def test_a_result_url_needs_no_key_and_serves_ranges(cinema: Caller) -> None:
    url = (await cinema.end(model=STILL, image_size={"width": 64, "height": 64}))["result_url"]
    status, content = await cinema.download(url)
    assert (status, content[:4]) == (200, b"\x89PNG")
    async with cinema.session.get(url, headers={"Range": "bytes=1-3"}) as response:
        assert (response.status, await response.read()) == (206, b"PNG")


@pytest.mark.parametrize(
    ("old", "new"),
    [("signature=", "signature=0"), ("expires=", "expires=9"), (".png?", ".jpeg?"), ("signature=", "s="), ("?", "?x=")],
)
async def test_a_changed_url_is_forbidden(cinema: Caller, old: str, new: str) -> None:
    url = (await cinema.end(model=STILL, image_size={"width": 64, "height": 64}))["result_url"]
    status, _ = await cinema.download(url.replace(old, new))
    assert status == 403


async def test_a_url_of_another_process_is_forbidden(cinema: Caller, swift: Caller) -> None:
    foreign = (await swift.end())["result_url"].replace(swift.sandbox.url, cinema.sandbox.url)
    assert (await cinema.download(foreign))[0] == 403


async def test_a_url_expires_and_a_later_get_gives_a_fresh_one(cinema: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = await cinema.end(model=STILL, image_size={"width": 64, "height": 64})
    assert (await cinema.download(generation["result_url"]))[0] == 200
    an_hour_later = time.time() + cinema.sandbox.options.url_ttl_s
    monkeypatch.setattr(cinema.sandbox.hub.results, "_clock", lambda: an_hour_later)
    assert (await cinema.download(generation["result_url"]))[0] == 403
    fresh = (await cinema.get(generation["generation_id"]))["result_url"]
    assert (await cinema.download(fresh))[0] == 200


async def test_without_rendering_a_result_url_answers_a_clear_404(swift: Caller) -> None:
    status, content = await swift.download((await swift.end())["result_url"])
    assert status == 404
    assert b"--no-render" in content


async def test_the_oldest_files_go_when_the_disk_bound_is_reached() -> None:
    async with calling(SandboxOptions(delay_s=0, results_max_bytes=1)) as caller:
        old = await caller.end(model=STILL, image_size={"width": 64, "height": 64})
        new = await caller.end(model=STILL, image_size={"width": 64, "height": 64})
        assert (await caller.download(old["result_url"]))[0] == 404
        assert (await caller.download(new["result_url"]))[0] == 200


async def test_a_public_url_is_put_in_front_of_results() -> None:
    async with calling(SandboxOptions(delay_s=0, render=False)) as caller:
        caller.sandbox.hub.base_url = "https://hub.example"
        assert (await caller.end())["result_url"].startswith("https://hub.example/results/")
    sandbox = Sandbox(SandboxOptions(render=False, public_url="https://hub.example/"))
    await sandbox.start()
    await sandbox.stop()
    assert sandbox.url == "https://hub.example"
