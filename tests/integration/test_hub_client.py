"""The paid POST and the free GETs, against the sandbox and against servers that misbehave to the byte."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import HubAccepted, HubRefused, NotSent, OutcomeUnknown, SubmitOutcome
from service.domain.matching import Sighting
from service.domain.states import OutputStatus
from service.domain.upstream import Listing
from service.hub.client import LIST_PIECE_BYTES, HubClient
from service.sandbox import Sandbox
from service.wire.json import dumps
from tests.integration.builders import new_request
from tests.support.raw import RawServer, http, raw_server, silent
from tests.support.replica import KEY

pytestmark = pytest.mark.asyncio
ACCEPTED = b'{"generations":[{"generation_id":"g-1","status":"queued"}]}'
PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@asynccontextmanager
async def client(url: str, *, key: str = KEY, submit_timeout_s: float = 5.0) -> AsyncIterator[HubClient]:
    """An open client."""
    opened = HubClient(url, key, connections=4, submit_timeout_s=submit_timeout_s)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def post(url: str, *, submit_timeout_s: float = 5.0, outputs: int = 1) -> SubmitOutcome:
    """One POST of a client of its own."""
    async with client(url, submit_timeout_s=submit_timeout_s) as hub:
        request = new_request(num_generations=outputs).request
        return (await hub.submit(request, {"prompt": "a lighthouse"})).outcome


# -- the POST ------------------------------------------------------------------------------------------------------


async def test_an_accepted_request_gets_an_id_for_each_output(hub: Sandbox) -> None:
    outcome = await post(hub.url, outputs=3)
    assert isinstance(outcome, HubAccepted)
    assert list(outcome.generation_ids) == [entry["generation_id"] for entry in hub.ledger()["generations"]]
    assert len(set(outcome.generation_ids)) == 3


async def test_the_post_carries_the_key_and_what_the_requester_gave_and_nothing_else() -> None:
    async with raw_server(http("200 OK", ACCEPTED)) as server:
        assert await post(server.url) == HubAccepted(("g-1",))
    head = server.requests[0].decode()
    assert head.startswith("POST /api/ai/queue HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n" in head
    assert "num_generations" not in head


async def test_a_refused_connection_is_surely_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await post(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert isinstance(outcome, NotSent)
    assert "could not be reached" in outcome.reason


async def test_silence_is_unknown_and_names_the_timeout() -> None:
    async with raw_server(silent) as server:
        outcome = await post(server.url, submit_timeout_s=0.3)
    assert outcome == OutcomeUnknown("the POST was cut off after 0.3 s")


async def test_an_answer_that_comes_too_slowly_is_unknown() -> None:
    async def drip(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with raw_server(drip) as server:
        assert await post(server.url, submit_timeout_s=0.3) == OutcomeUnknown("the POST was cut off after 0.3 s")


async def reset(reader: StreamReader, writer: StreamWriter) -> None:
    """Reads the request, resets the connection."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


@pytest.mark.parametrize(
    "answer",
    [
        reset,
        http("200 OK", ACCEPTED[:20], length=len(ACCEPTED)),
        http("502 Bad Gateway", PAGE, "Content-Type: text/html"),
        http("500 Internal Server Error", b'{"error":{"message":"oops"}}'),
        http("301 Moved Permanently", b"", "Location: /elsewhere"),
        http("200 OK", b"{}"),
        http("200 OK", b"not json"),
        http("200 OK", b"not gzip", "Content-Encoding: gzip"),
        http("nonsense", b""),
    ],
    ids=["reset", "cut in the body", "html 502", "500", "301", "no ids", "no json", "no gzip", "no http"],
)
async def test_whatever_goes_wrong_after_the_connection_was_made_is_unknown(answer: object) -> None:
    async with raw_server(answer) as server:  # type: ignore[arg-type]  # each is an Answer
        outcome = await post(server.url)
        assert isinstance(outcome, OutcomeUnknown), outcome
        assert len(server.requests) == 1, "the paid POST was sent again"


async def test_a_kept_connection_that_the_server_closes_makes_no_second_post() -> None:
    """aiohttp repeats idempotent calls whose reused connection was closed under them; the POST must not be."""
    posts = 0

    async def once(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal posts
        while True:
            await reader.readuntil(b"\r\n\r\n")
            posts += 1
            if posts == 2:
                writer.transport.abort()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTED) + ACCEPTED)
            await writer.drain()
            await reader.read(65536)  # the body

    async with raw_server(once) as server, client(server.url) as hub:
        request = new_request().request
        assert isinstance((await hub.submit(request, {})).outcome, HubAccepted)
        assert isinstance((await hub.submit(request, {})).outcome, OutcomeUnknown)
    assert posts == 2


async def test_too_many_requests_waits_as_long_as_the_hub_asks() -> None:
    async with raw_server(http("429 Too Many Requests", b"", "Retry-After: 7")) as server:
        before = utc_now()
        outcome = await post(server.url)
    assert isinstance(outcome, NotSent)
    assert timedelta(seconds=6.9) < outcome.retry_at - before < timedelta(seconds=8.5)


async def test_a_refusal_of_the_hub_is_the_requests_end_and_keeps_the_words() -> None:
    body = b'{"error":{"type":"invalid_params","title":"Bad","detail":"no such model"},"status":"error"}'
    async with raw_server(http("422 Unprocessable Entity", body)) as server:
        outcome = await post(server.url)
    assert isinstance(outcome, HubRefused)
    assert "no such model" in outcome.fault.message


async def test_a_key_that_the_hub_does_not_take_is_not_the_requests_fault(hub: Sandbox) -> None:
    async with client(hub.url, key="wrong") as wrong:
        outcome = (await wrong.submit(new_request().request, {"prompt": "x"})).outcome
        assert isinstance(outcome, NotSent)
        assert "OXEN_API_KEY" in outcome.reason
        for ask in (wrong.active(None, ()), wrong.generation("g"), wrong.model("m")):
            with pytest.raises(HubRefusedKeyError, match="OXEN_API_KEY"):
                await ask


# -- the GETs ------------------------------------------------------------------------------------------------------


async def test_lists_and_single_generations_are_read_from_the_hub(hub: Sandbox) -> None:
    outcome = await post(hub.url)
    assert isinstance(outcome, HubAccepted)
    async with client(hub.url) as asking:
        assert await asking.active(None, ["unknown", *outcome.generation_ids]) == Listing(("unknown",), complete=True)
        report = await asking.generation(outcome.generation_ids[0])
        assert report is not None
        assert report.status in {OutputStatus.QUEUED, OutputStatus.PROCESSING}
        assert await asking.generation("unknown/../id?x=1") is None


async def test_models_are_read_from_the_hub(hub: Sandbox) -> None:
    async with client(hub.url) as asking:
        described = await asking.model("ltx-2-3-quality-text-to-video")
        assert described is not None
        assert described.outputs == ("video",)
        assert described.schema is not None
        assert await asking.model("unknown") is None


@pytest.mark.parametrize(
    "answer",
    [
        silent,
        reset,
        http("502 Bad Gateway", PAGE),
        http("404 Not Found", PAGE),
        http("200 OK", b"[]"),
        http("302 Found", b"", "Location: /elsewhere"),
    ],
    ids=["silence", "reset", "html 502", "a foreign 404", "another shape", "302"],
)
async def test_an_answer_that_is_not_the_hubs_own_proves_nothing(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.hub.client.READ_TIMEOUT_S", 0.3)
    async with raw_server(answer) as server:  # type: ignore[arg-type]  # each is an Answer
        for question in (("active", "x", ["g"]), ("sightings", "x", bool), ("generation", "x"), ("model", "x")):
            async with client(server.url) as asking:
                with pytest.raises(HubUnavailableError):
                    await getattr(asking, question[0])(*question[1:])


async def test_a_list_that_says_it_left_some_out_is_not_complete() -> None:
    body = b'{"count":5,"generations":[{"generation_id":"g-1","status":"queued"}]}'
    async with raw_server(http("200 OK", body)) as server, client(server.url) as asking:
        assert await asking.active("team", ["g-1", "g-2"]) == Listing(("g-2",), complete=False)
    assert server.requests[0].startswith(b"GET /api/ai/queue?namespace=team ")


async def test_what_a_list_shows_besides_is_not_kept() -> None:
    shown = [{"generation_id": f"g-{n}", "model_name": "m", "prompt": "x" * n} for n in range(100)]
    body = dumps({"count": 100, "generations": shown})
    async with raw_server(http("200 OK", body)) as server, client(server.url) as asking:
        found = await asking.sightings(None, lambda seen: seen.parameters["prompt"] == "xx", "m", OutputStatus.FAILED)
    assert [sighting.generation_id for sighting in found.sightings] == ["g-2"]
    assert found.complete
    assert server.requests[0].startswith(b"GET /api/ai/queue?model=m&status=failed ")


@pytest.mark.parametrize("ending", [b"", b"]", b"]}]"], ids=["torn in the list", "torn behind it", "too much"])
async def test_a_list_that_is_not_whole_proves_nothing(ending: bytes) -> None:
    async def tell(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"generations":[{"generation_id":"g-1"}' + ending)

    async with raw_server(tell) as server, client(server.url) as asking:
        with pytest.raises(HubUnavailableError, match="not readable"):
            await asking.active(None, ["g-1", "g-2"])


async def test_reading_a_long_list_lets_the_others_work() -> None:
    size, turn = 1000, 0
    shown = [{"generation_id": f"g-{n}", "model_name": "m", "prompt": "x" * size} for n in range(4000)]
    read_in_turn: Counter[int] = Counter()

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def note(_: Sighting) -> bool:
        read_in_turn[turn] += 1
        return False

    async with raw_server(http("200 OK", dumps({"generations": shown}))) as server, client(server.url) as asking:
        working = asyncio.create_task(others())
        try:
            await asking.sightings(None, note)
        finally:
            working.cancel()
    assert sum(read_in_turn.values()) == len(shown)
    assert max(read_in_turn.values()) <= 1 + LIST_PIECE_BYTES // size


async def test_closing_the_client_leaves_no_connection() -> None:
    async with raw_server(http("200 OK", ACCEPTED)) as server:
        async with client(server.url) as asking:
            await asyncio.gather(*(asking.submit(new_request().request, {}) for _ in range(4)))
            assert server.open > 0
        await server.wait_until(_nobody)


def _nobody(server: RawServer) -> bool:
    return server.open == 0
