"""The event stream: what is heard, how it ends, and that every end is one error and leaves nothing open."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import OutputReported
from service.domain.states import OutputStatus
from service.hub.stream import HubStream
from service.sandbox import Sandbox, SandboxOptions
from tests.support.raw import Answer, RawServer, http, raw_server, silent
from tests.support.replica import KEY

pytestmark = pytest.mark.asyncio
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
Play = Callable[[StreamWriter], Awaitable[None]]


class Ears:
    """What one listening heard, and how it ended."""

    def __init__(self, url: str, *, key: str = KEY, idle_timeout_s: float = 5.0) -> None:
        self._stream = HubStream(url, key, idle_timeout_s=idle_timeout_s)
        self.opened = asyncio.Event()
        self.heard: asyncio.Queue[OutputReported] = asyncio.Queue()

    async def listen(self) -> None:
        """One connection until it ends."""
        await asyncio.wait_for(self._stream.listen(self.opened.set, self.heard.put_nowait), 10)

    def all(self) -> list[str]:
        """The generations heard of so far."""
        return [self.heard.get_nowait().generation_id for _ in range(self.heard.qsize())]


def completed(generation_id: str, padding: int = 0, kind: str = "media_generation_completed") -> bytes:
    """One event as the hub writes it."""
    data = {"generation_id": generation_id, "status": "succeeded", "media_type": "video", "url": "https://f.test/a"}
    return f"event: {kind}\ndata: {json.dumps({**data, 'prompt': 'x' * padding})}\n\n".encode()


def streaming(play: Play) -> Answer:
    """A server whose stream goes as played."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        await play(writer)

    return answer


def written(data: bytes) -> Answer:
    """A stream of these bytes, closed in good order."""

    async def play(writer: StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return streaming(play)


def nobody(server: RawServer) -> bool:
    """No connection is left."""
    return server.open == 0


async def test_completions_of_the_hub_are_heard(hub: Sandbox) -> None:
    ears = Ears(hub.url)
    listening = asyncio.create_task(ears.listen())
    await asyncio.wait_for(ears.opened.wait(), 5)
    body = {"model": "ltx-2-3-quality-text-to-video", "prompt": "x"}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{hub.url}/api/ai/queue", json=body) as answer,
    ):
        generation_id = (await answer.json())["generations"][0]["generation_id"]
    report = await asyncio.wait_for(ears.heard.get(), 5)
    assert (report.generation_id, report.status) == (generation_id, OutputStatus.SUCCEEDED)
    assert report.url is not None
    hub.cut_streams()
    with pytest.raises(HubUnavailableError):
        await listening


async def test_other_event_types_comments_and_unreadable_data_are_passed_over() -> None:
    odd = b"event: media_generation_completed\ndata: not json\n\nevent: media_generation_completed\ndata: {}\n\n"
    bare = b'data: {"generation_id":"g-0","status":"succeeded"}\n\nid: 7\nretry: 99999999999\n\n'
    everything = b": hello\n\n" + completed("x", kind="media_generation_started") + odd + bare + completed("g-1")
    async with raw_server(written(everything)) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError):
            await ears.listen()
    assert ears.all() == ["g-1"]


async def test_keep_alives_keep_the_stream_past_the_idle_timeout_and_silence_ends_it() -> None:
    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(8):
            await asyncio.sleep(0.1)
            writer.write(b": keep-alive\n\n")
        writer.write(completed("g-1"))
        await silent(reader, writer)

    async with raw_server(answer) as server:
        ears = Ears(server.url, idle_timeout_s=0.4)
        began = asyncio.get_running_loop().time()
        with pytest.raises(HubUnavailableError, match=r"silent for 0\.4 s"):
            await ears.listen()
        assert asyncio.get_running_loop().time() - began > 1.1
        assert ears.all() == ["g-1"]
        await server.wait_until(nobody)


async def test_the_sandboxs_keep_alives_are_enough() -> None:
    async with Sandbox(SandboxOptions(api_key=KEY, render=False, keep_alive_s=0.05)) as hub:
        ears = Ears(hub.url, idle_timeout_s=0.3)
        listening = asyncio.create_task(ears.listen())
        done, _ = await asyncio.wait([listening], timeout=0.9)
        assert not done
        hub.cut_streams()
        with pytest.raises(HubUnavailableError):
            await listening


async def test_a_clean_end_is_told_and_not_hidden_behind_a_reconnect() -> None:
    async with raw_server(written(completed("g-1"))) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError, match="closed the stream"):
            await ears.listen()
        assert ears.all() == ["g-1"]
        await server.wait_until(nobody)
        assert len(server.requests) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_abrupt_cut_is_the_same_error_and_leaves_nothing_open(chunked: bool) -> None:
    async def play(writer: StreamWriter) -> None:
        data = completed("g-1")
        writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        await writer.drain()
        await asyncio.sleep(0.1)  # a reset overtakes what has not been read yet
        writer.transport.abort()

    head = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") if chunked else HEAD

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await play(writer)

    async with raw_server(answer) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError):
            await ears.listen()
        assert ears.all() == ["g-1"]
        await server.wait_until(nobody)


async def test_half_an_event_before_a_cut_is_not_glued_to_the_next_connection() -> None:
    """What the library does when it reconnects by itself, and both events are lost."""
    parts = [completed("half")[:60], completed("whole")]

    async def play(writer: StreamWriter) -> None:
        writer.write(parts.pop(0))
        await writer.drain()

    async with raw_server(streaming(play)) as server:
        ears = Ears(server.url)
        for _ in range(2):
            with pytest.raises(HubUnavailableError):
                await ears.listen()
    assert ears.all() == ["whole"]


async def test_an_event_of_a_megabyte_is_heard() -> None:
    async with raw_server(written(completed("long", 1_000_000) + completed("next"))) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError, match="closed the stream"):
            await ears.listen()
    assert ears.all() == ["long", "next"]


async def test_a_line_beyond_all_measure_ends_the_connection_like_any_other_break() -> None:
    async with raw_server(written(completed("endless", 20_000_000))) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError):
            await ears.listen()
        await server.wait_until(nobody)
    assert ears.all() == []


@pytest.mark.parametrize(
    "data", [b"data: \xff\xfe\n\n", b"retry: 99999999999999999999999\n\n"], ids=["no utf-8", "an endless retry"]
)
async def test_a_stream_that_breaks_the_library_ends_like_any_other(data: bytes) -> None:
    async with raw_server(written(data)) as server:
        with pytest.raises(HubUnavailableError):
            await Ears(server.url).listen()
        await server.wait_until(nobody)


@pytest.mark.parametrize("status", ["401 Unauthorized", "402 Payment Required", "403 Forbidden"])
async def test_a_key_that_the_hub_refuses_is_told_apart(status: str) -> None:
    async with raw_server(http(status, b"{}")) as server:
        ears = Ears(server.url)
        with pytest.raises(HubRefusedKeyError, match="OXEN_API_KEY"):
            await ears.listen()
        assert not ears.opened.is_set()
        await server.wait_until(nobody)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http("503 Service Unavailable", b"{}", "Retry-After: 3"), "answered 503"),
        (http("204 No Content", b""), "something else than an event stream"),
        (http("200 OK", b"<html>", "Content-Type: text/html"), "something else than an event stream"),
        (http("302 Found", b"", "Location: /elsewhere"), "something else than an event stream"),
    ],
    ids=["503", "204", "html", "302"],
)
async def test_an_answer_that_is_no_stream_says_so_and_leaves_nothing_open(answer: Answer, told: str) -> None:
    async with raw_server(answer) as server:
        ears = Ears(server.url)
        with pytest.raises(HubUnavailableError, match=told):
            await ears.listen()
        assert not ears.opened.is_set()
        await server.wait_until(nobody)
        assert len(server.requests) == 1


async def test_a_hub_that_is_away_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(HubUnavailableError, match="could not be reached"):
            await asyncio.wait_for(Ears(f"http://127.0.0.1:{taken.getsockname()[1]}").listen(), 2)


async def test_a_listener_that_is_cancelled_leaves_nothing_open(hub: Sandbox) -> None:
    ears = Ears(hub.url)
    listening = asyncio.create_task(ears.listen())
    await asyncio.wait_for(ears.opened.wait(), 5)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    async with asyncio.timeout(5):
        while hub.ledger()["streams"]:
            await asyncio.sleep(0.01)
