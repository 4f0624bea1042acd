"""The sandbox's faults of the event stream, and what its ledger tells of streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from service.sandbox import Faults, SandboxOptions
from tests.conformance.caller import PATIENCE_S, Caller, Listener, calling

pytestmark = pytest.mark.asyncio


async def until_cut(listener: Listener) -> None:
    """Until the connection breaks off, which is not the end of a stream in good order."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(aiohttp.ClientError):
            await listener.response.content.read()


@asynccontextmanager
async def wire(caller: Caller) -> AsyncIterator[asyncio.StreamReader]:
    """A stream as it comes over the wire, after its headers: aiohttp hides what came just before a break."""
    host, port = caller.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = caller.key["Authorization"]
    writer.write(f"GET /api/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: {key}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    yield reader
    writer.close()
    await writer.wait_closed()


async def torn(reader: asyncio.StreamReader) -> str:
    """What came over the wire before the break; the last frame is not whole, and neither is the body."""
    async with asyncio.timeout(PATIENCE_S):
        heard = (await reader.read()).decode()
    assert not heard.endswith("\n\n\r\n")
    assert "\r\n0\r\n" not in heard
    return heard


async def assert_whole(caller: Caller, listener: Listener) -> None:
    """The stream still tells what happens."""
    [generation_id] = await caller.post()
    assert (await listener.event())["generation_id"] == generation_id


async def test_streams_are_cut_again_and_again(swift: Caller) -> None:
    async with swift.listen() as open_before:
        await swift.set(stream_cut_every_s=0.05)
        await until_cut(open_before)
    for _ in range(3):
        async with swift.listen() as opened_since:
            await until_cut(opened_since)


async def test_a_healed_stream_is_not_cut_any_more(swift: Caller) -> None:
    async with swift.listen() as listener:
        swift.sandbox.faults = Faults(stream_cut_every_s=0.1)
        swift.sandbox.faults = Faults()
        await asyncio.sleep(0.2)  # the cut would have come by then
        await assert_whole(swift, listener)


async def test_the_times_of_cuts_vary_around_what_was_asked_for(slow: Caller) -> None:
    await slow.set(stream_cut_every_s=0.6)

    async def listen() -> None:
        async with slow.listen() as listener:
            await until_cut(listener)

    await asyncio.gather(*(listen() for _ in range(20)))
    await slow.until(lambda sandbox: sandbox.ledger()["streams"] == 0)
    lives = [span["closed_at"] - span["opened_at"] for span in (await slow.ledger())["stream_log"]]
    assert min(lives) > 0.29
    assert max(lives) - min(lives) > 0.15


async def test_a_muted_stream_stays_open_and_says_nothing_and_its_events_are_lost() -> None:
    async with calling(SandboxOptions(delay_s=0.02, keep_alive_s=0.05, render=False)) as caller:
        await caller.set(stream_muted=True)
        async with caller.listen() as listener:
            await caller.end()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await listener.frame()
            assert caller.sandbox.ledger()["streams"] == 1
            await caller.set()
            assert await listener.frame() == ": keep-alive"


async def test_a_torn_stream_breaks_off_in_the_middle_of_the_next_event(swift: Caller) -> None:
    async with wire(swift) as one, wire(swift) as other:
        answer = await swift.call("POST", "/sandbox/streams/tear")
        assert answer.json == {"streams": 2}
        [generation_id] = await swift.post()
        for reader in (one, other):
            assert f'event: media_generation_completed\ndata: {{"generation_id":"{generation_id}"' in await torn(reader)
    async with swift.listen() as listener:  # torn once, not for ever
        await assert_whole(swift, listener)


async def test_a_stream_can_be_torn_at_the_event_of_one_generation(slow: Caller) -> None:
    ids = await slow.post(num_generations=3)
    hub = slow.sandbox.hub
    async with wire(slow) as reader:
        await slow.call("POST", "/sandbox/streams/tear", {"generation_id": ids[1]})
        for generation_id in ids:
            hub._fall_due(hub.ledger.generations[generation_id])
        first, second = (await torn(reader)).split("\n\n")
    assert ids[0] in first
    assert ids[1] in second
    assert ids[2] not in second


async def test_a_tear_waits_for_somebody_to_listen_and_is_forgotten_with_the_faults(swift: Caller) -> None:
    await swift.call("POST", "/sandbox/streams/tear")
    await swift.end()
    async with wire(swift) as reader:
        [generation_id] = await swift.post()
        assert generation_id in await torn(reader)
    await swift.call("POST", "/sandbox/streams/tear")
    await swift.set()
    async with swift.listen() as listener:
        await assert_whole(swift, listener)


@pytest.mark.parametrize("body", [b"[]", b'{"id":"x"}', b'{"generation_id":1}'])
async def test_a_tear_that_names_no_event_is_refused(slow: Caller, body: bytes) -> None:
    answer = await slow.call("POST", "/sandbox/streams/tear", body)
    assert answer.status == 400


async def test_doubled_events_come_twice(swift: Caller) -> None:
    await swift.set(events_doubled=1)
    async with swift.listen() as listener:
        [generation_id] = await swift.post()
        first, second = await listener.event(), await listener.event()
    assert first == second
    assert first["generation_id"] == generation_id


async def test_foreign_events_are_of_another_type_or_of_generations_that_nobody_submitted_here(swift: Caller) -> None:
    await swift.set(events_foreign=1)
    async with swift.listen() as listener:
        [generation_id] = await swift.post()
        other_type = await listener.frame()
        foreign, own = await listener.event(), await listener.event()
    assert not other_type.startswith("event: media_generation_completed")
    assert own["generation_id"] == generation_id
    assert (await swift.call("GET", f"/api/ai/queue/{foreign['generation_id']}")).status == 404


async def test_some_events_are_dropped_and_the_others_are_not() -> None:
    async with calling(SandboxOptions(delay_s=0.02, render=False, seed=1)) as caller, caller.listen() as listener:
        await caller.set(events_dropped=0.5)
        ids = [generation_id for _ in range(8) for generation_id in await caller.post(num_generations=4)]
        for generation_id in ids:
            await caller.ended(generation_id)
        dropped = (await caller.ledger())["strikes"]["events_dropped"]
        heard = {(await listener.event())["generation_id"] for _ in range(32 - dropped)}
    assert 0 < dropped < 32
    assert heard < set(ids)


async def test_a_refused_stream_looks_as_errors_are_to_look(slow: Caller) -> None:
    await slow.set(stream_refused=True, retry_after="5", html_bodies=True)
    async with slow.session.get(slow.sandbox.url + "/api/events", headers=slow.key) as response:
        assert (response.status, response.headers["Retry-After"], response.content_type) == (503, "5", "text/html")


async def test_the_ledger_tells_when_each_stream_was_open(slow: Caller) -> None:
    async with slow.listen():
        async with slow.listen():
            [first, second] = (await slow.ledger())["stream_log"]
            assert first["closed_at"] is second["closed_at"] is None
        await slow.until(lambda sandbox: sandbox.ledger()["streams"] == 1)
        [first, second] = (await slow.ledger())["stream_log"]
        assert first["closed_at"] is None
        assert first["opened_at"] <= second["opened_at"] <= second["closed_at"] <= time.time()
        assert abs(first["opened_at"] - time.time()) < 5
