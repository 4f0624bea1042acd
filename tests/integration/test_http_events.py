"""`GET /v1/events`: every published event once to everybody who follows, and nothing missed by who comes again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.app import App
from service.domain.messages import Message
from service.http import events
from service.sandbox import Sandbox
from service.workers import feed
from tests.integration.builders import Sql
from tests.support.api import Api, Shown
from tests.support.replica import environment, running

pytestmark = pytest.mark.asyncio
PROMPT = {"prompt": "a lighthouse at dawn"}
NAMES = ["generation.accepted", "generation.submitted", "generation.succeeded"]
NUMBERS = count(1)


@pytest_asyncio.fixture
async def app(amqp_url: str, database_url: str, hub: Sandbox) -> AsyncIterator[App]:
    async with running(environment(amqp_url, database_url, hub.url)) as replica:
        yield replica


@pytest_asyncio.fixture
async def api(app: App) -> AsyncIterator[Api]:
    async with Api(f"http://127.0.0.1:{app.http.port}") as caller:
        yield caller


async def told(session: Sql, request_id: str, *, size: int = 10, rows: int = 1, waits: bool = False) -> list[int]:
    """Events of nobody's request, stored by hand and counted as published unless one `waits`; their rows."""
    body = json.dumps({"subject": request_id, "data": "x" * size}).encode()
    found = await session.fetch(
        """
        insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at)
        select gen_random_uuid(), $1, $2 + n, true, false, 'generation.output', 'generation.output', $3, now()
        from generate_series(1, $4) n
        returning row_id
        """,
        request_id,
        next(NUMBERS) * 100_000,
        body,
        rows,
    )
    if waits:
        await session.execute(
            "insert into unpublished select row_id, request_id, sequence, stored, 0, '2090-01-01' from outbox"
            " where row_id = $1",
            found[0][0],
        )
    return [row[0] for row in found]


async def take(shown: AsyncIterator[Shown], number: int) -> list[Shown]:
    """The next so many."""
    async with asyncio.timeout(20):
        return [await anext(shown) for _ in range(number)]


async def test_a_request_is_followed_from_its_beginning_to_its_end(api: Api) -> None:
    await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
    async with api.stream(request_id="r-1") as shown:
        past = await take(shown, 3)
    assert [item.name for item in past] == NAMES
    assert [item.data["type"] for item in past] == [f"drover.{name}.v1" for name in NAMES]
    assert len({item.id for item in past}) == 3


async def test_who_follows_before_the_request_is_sent_sees_it_live_and_nothing_of_others(api: Api) -> None:
    async with api.stream(request_id="r-1") as one, api.stream() as everything:
        await api.post({"request_id": "r-2", "input": PROMPT}, wait="30")
        await api.post({"request_id": "r-1", "input": PROMPT})
        assert [(item.subject, item.name) for item in await take(one, 3)] == [("r-1", name) for name in NAMES]
        assert {item.subject for item in await take(everything, 6)} == {"r-1", "r-2"}


async def test_what_was_not_accepted_is_told_to_who_follows_it_and_a_terminal_event_sent_again_is_not(
    api: Api, app: App
) -> None:
    await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
    async with api.stream() as shown:
        await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
        await app.bus.publish_command("generation.request", _message(b'{"request_id": "r-2", "input": {}}'))
        assert [(item.subject, item.name) for item in await take(shown, 1)] == [("r-2", "generation.rejected")]


async def test_who_comes_again_with_the_last_id_misses_nothing_that_was_published_meanwhile(api: Api, sql: Sql) -> None:
    async with api.stream() as shown:
        await told(sql, "a", rows=3)
        last = (await take(shown, 3))[-1].id
    missed = await told(sql, "b", rows=1200)
    async with api.stream(last) as shown:
        later = await told(sql, "c", rows=2)
        assert [int(item.id.partition(":")[2]) for item in await take(shown, 1202)] == [*missed, *later]


async def test_what_commits_late_or_is_published_late_is_told_and_not_lost_when_somebody_comes_again(
    api: Api, sql: Sql, database_url: str
) -> None:
    await told(sql, "long ago", rows=1000)  # the tests before this one have left holes, as a restored database has them
    late = await asyncpg.connect(database_url)
    transaction = late.transaction()
    await transaction.start()
    (held,) = await told(late, "late")
    (waits,) = await told(sql, "waits", waits=True)
    (before,) = await told(sql, "before")
    async with api.stream() as shown:
        (after,) = await told(sql, "after")
        (seen,) = await take(shown, 1)
        assert (seen.subject, held < waits < before < after) == ("after", True)
    await transaction.commit()
    async with api.stream(seen.id) as shown:
        (seen,) = await take(shown, 1)
        assert seen.subject == "late"
        await sql.execute("delete from unpublished")
        (seen,) = await take(shown, 1)
        assert seen.subject == "waits"
    await told(sql, "end")
    async with api.stream(seen.id) as shown:
        assert [item.subject for item in await take(shown, 1)] == ["end"], "and nothing twice"
    await late.close()


async def test_a_row_id_that_was_never_used_holds_nobody_up(api: Api, sql: Sql) -> None:
    async with api.stream() as shown:
        transaction = sql.transaction()
        await transaction.start()
        await told(sql, "gone", rows=20)
        await transaction.rollback()
        await told(sql, "a")
        await take(shown, 1)
        (seen,) = await _until(shown, sql, lambda item: "-" not in item.id)
        assert "-" not in seen.id


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(
    api: Api, app: App, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WRITE_TIMEOUT_S", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", app.http.port, limit=1024)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"retry: 1000\n\n")
    async with api.stream() as shown:
        for _ in range(20):
            await told(sql, "a", size=20_000, rows=100)
            await take(shown, 100)
        async with asyncio.timeout(20):
            while app.metrics.registry.get_sample_value("drover_feed_followers") != 1:
                await told(sql, "a")
                await take(shown, 1)
    writer.close()


async def test_one_that_falls_behind_the_others_is_cut_off_too(
    api: Api, app: App, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_UNREAD", 50)
    follower = await app.feed.follow()
    (first,) = await told(sql, "a")
    assert [item.event.row_id for item in await follower.next(10)] == [first]
    await told(sql, "b", rows=51)
    with pytest.raises(feed.LaggingError):
        await follower.next(10)
    app.feed.leave(follower)


async def test_a_replica_that_shuts_down_ends_the_streams(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    async with (
        running(environment(amqp_url, database_url, hub.url)) as app,
        Api(f"http://127.0.0.1:{app.http.port}") as api,
        api.stream() as shown,
    ):
        stopping = asyncio.create_task(app.stop())
        with pytest.raises(StopAsyncIteration):
            await take(shown, 1)
        await stopping


async def test_no_more_follow_a_replica_than_it_can_serve(
    api: Api, app: App, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_FOLLOWERS", 1)
    async with api.stream():
        refused = await api.get("/v1/events")
        assert (refused.status, refused.kind) == (503, "application/problem+json")
    async with asyncio.timeout(20):
        while app.metrics.registry.get_sample_value("drover_feed_followers"):
            await told(sql, "a")  # a client that has gone is noticed when there is something to tell it
    async with api.stream():
        pass


async def test_what_is_no_id_of_an_event_is_refused(api: Api) -> None:
    refused = await api.call("GET", "/v1/events", headers={"Last-Event-ID": "x"})
    assert (refused.status, refused.kind) == (422, "application/problem+json")


async def test_the_database_is_looked_at_only_while_somebody_follows(api: Api, app: App) -> None:
    assert not app.feed._begun.is_set()
    async with api.stream():
        assert app.feed._begun.is_set()


def _message(body: bytes) -> Message:
    return Message(body, "application/json")


async def _until(shown: AsyncIterator[Shown], sql: Sql, wanted: Callable[[Shown], bool]) -> list[Shown]:
    async with asyncio.timeout(20):
        while True:
            await told(sql, str(uuid4()))
            item = await anext(shown)
            if wanted(item):
                return [item]
