"""One replica leads, whatever happens to it: the stream changes hands in seconds and the gap is closed at once."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from service.app import build
from service.clock import utc_now
from service.sandbox import Sandbox, SandboxOptions
from service.settings import load_settings
from tests.support.bus import Team, name_of
from tests.support.proxy import Cable
from tests.support.replica import KEY, Process, environment, get, running
from tests.support.streams import StreamWatch

pytestmark = pytest.mark.asyncio
AFTER_A_KILL_S = 10.0
AFTER_A_FREEZE_S = 15.0
GAP_S = 2.0
WAKING_S = 1.0


@pytest_asyncio.fixture
async def slow_hub() -> AsyncIterator[Sandbox]:
    """A hub whose generations end after 3 s, so that some end in every change of hands."""
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=3.0, jitter_s=2.0, render=False)) as hub:
        yield hub


@pytest.fixture
def streams(slow_hub: Sandbox) -> StreamWatch:
    """A look at its streams."""
    return StreamWatch(slow_hub)


def requests(prefix: str, count: int) -> list[dict[str, object]]:
    """Requests of one team."""
    return [{"request_id": f"{prefix}{i}", "input": {"prompt": f"{prefix} {i}"}} for i in range(count)]


async def submitted(team: Team, count: int) -> None:
    """Waits until the hub has taken that many."""
    await team.wait_for(lambda heard: sum(name_of(event) == "submitted" for event in heard.events) >= count)


async def all_ended(team: Team, sent: list[dict[str, object]], timeout_s: float) -> None:
    """Waits for the end of each, and sees that each has one."""
    ids = [str(request["request_id"]) for request in sent]
    await team.wait_for(lambda heard: all(map(heard.ends, ids)), timeout_s)
    assert all(len({end["id"] for end in team.ends(request_id)}) == 1 for request_id in ids)


async def test_a_leader_that_is_killed_is_followed_within_ten_seconds_and_the_gap_is_closed_within_two(
    amqp_url: str, database_url: str, slow_hub: Sandbox, streams: StreamWatch
) -> None:
    variables = environment(amqp_url, database_url, slow_hub.url)
    async with Process(variables) as first, Team(amqp_url) as team:
        await first.ready()
        await streams.until(1)
        async with Process(variables) as second:
            await second.ready()
            sent = requests("r", 30)
            await team.send_many(sent)
            await submitted(team, len(sent))
            first.kill()
            killed = await streams.until(0)
            opened = await streams.until(1)
            assert opened - killed < AFTER_A_KILL_S
            await all_ended(team, sent, opened + GAP_S - time.monotonic())
    assert slow_hub.ledger()["peak_streams"] == 1
    assert slow_hub.ledger()["calls"]["list"] <= 3  # one a sweep: of the first, of the second


async def test_a_leader_that_was_frozen_is_followed_and_closes_its_stream_within_a_second_of_waking(
    amqp_url: str, database_url: str, slow_hub: Sandbox, streams: StreamWatch
) -> None:
    variables = environment(amqp_url, database_url, slow_hub.url)
    async with Process(variables) as first, Team(amqp_url) as team:
        await first.ready()
        await streams.until(1)
        async with Process(variables) as second:
            await second.ready()
            sent = requests("r", 100)
            await team.send_many(sent)
            await submitted(team, 10)  # its relay is in the middle of a batch
            first.process.send_signal(signal.SIGSTOP)
            frozen = time.monotonic()
            opened = await streams.until(2)
            assert opened - frozen < AFTER_A_FREEZE_S
            await asyncio.sleep(max(0.0, frozen + 8.0 - time.monotonic()))  # the freeze is the point
            first.process.send_signal(signal.SIGCONT)
            woken = time.monotonic()
            assert await streams.until(1) - woken < WAKING_S
            assert (await first.logged("leadership.lost"))["term"] == 1
            # What the frozen one had claimed is a doubt or an answer by now; none is lost.
            await all_ended(team, sent, 40)
            assert await streams.until(1) < time.monotonic()
    assert slow_hub.ledger()["peak_streams"] == 2
    assert streams.longest(2, since=woken) < WAKING_S


async def test_a_leader_that_is_told_to_go_hands_over_in_well_under_two_seconds(
    amqp_url: str, database_url: str, slow_hub: Sandbox, streams: StreamWatch
) -> None:
    variables = environment(amqp_url, database_url, slow_hub.url)
    async with Process(variables) as first, Team(amqp_url) as team:
        await first.ready()
        await streams.until(1)
        async with Process(variables) as second:
            await second.ready()
            sent = requests("r", 30)
            await team.send_many(sent)
            await submitted(team, len(sent))
            first.terminate()
            closed = await streams.until(0)
            opened = await streams.until(1)
            assert opened - closed < 1.0
            assert await first.ended() == 0
            await all_ended(team, sent, 10)
    assert slow_hub.ledger()["peak_streams"] == 1


async def test_without_its_database_nobody_leads_and_somebody_does_when_it_is_back(
    amqp_url: str, database_url: str, slow_hub: Sandbox, streams: StreamWatch
) -> None:
    async with Cable(database_url) as cable, Team(amqp_url) as team:
        variables = environment(amqp_url, cable.url, slow_hub.url)
        async with Process(variables) as first, Process(variables) as second:
            await first.ready()
            await second.ready()
            await streams.until(1)
            sent = requests("r", 30)
            await team.send_many(sent)
            await submitted(team, len(sent))
            await cable.unplug()
            away = time.monotonic()
            assert await streams.until(0) - away < 6.0 + WAKING_S
            await asyncio.sleep(max(0.0, away + 10.0 - time.monotonic()))  # the outage is the point
            assert streams.count == 0
            await cable.plug()
            back = time.monotonic()
            opened = await streams.until(1)
            assert opened - back < 6.0
            await all_ended(team, sent, opened + GAP_S - time.monotonic())
    assert slow_hub.ledger()["peak_streams"] == 1


async def test_an_opening_of_the_stream_that_could_not_be_noted_is_noted_as_soon_as_the_database_is_back(
    amqp_url: str, database_url: str, slow_hub: Sandbox, streams: StreamWatch
) -> None:
    """Every replica goes by it: what it submitted before the opening is asked for at once."""
    async with Cable(database_url) as cable, running(environment(amqp_url, cable.url, slow_hub.url)) as app:
        await streams.until(1)
        await cable.unplug()
        cut = utc_now()
        slow_hub.cut_streams()
        await streams.until(0)
        await streams.until(1)
        await asyncio.sleep(1.0)  # long enough to try in vain, short enough to keep the lease
        await cable.plug()
        connection = await asyncpg.connect(database_url)
        try:
            async with asyncio.timeout(4):
                while (await connection.fetchval("select stream_opened_at from leadership") or cut) <= cut:
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()
        assert app.leadership.leading


class BrokenStream:
    """A stream that fails as nobody foresaw."""

    async def listen(self, *_: object) -> None:
        """Breaks at once."""
        raise ValueError("nobody foresaw this")


async def test_a_leader_whose_components_keep_breaking_is_not_healthy(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.TOO_MANY_FAILURES", 2)
    app = build(load_settings(variables), stream=BrokenStream())
    url = f"http://127.0.0.1:{await app.start()}/healthz"
    try:
        async with asyncio.timeout(10):
            while (answer := await get(url))[0] == 200:
                await asyncio.sleep(0.05)
    finally:
        await app.stop()
    assert answer[0] == 503
    assert json.loads(answer[1])["reason"].startswith("listener broke ")
