"""A rolling restart under load: both replicas are replaced, one after the other, as Kubernetes does it (maxSurge 1,
maxUnavailable 0), and neither producers, consumers nor callers of the API notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import structlog
from aio_pika.abc import AbstractIncomingMessage

from service.rabbit.topology import REQUESTS
from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import TERMINAL, Team, name_of
from tests.support.replica import KEY, Process, environment
from tests.support.servers import Servers
from tests.support.streams import StreamWatch

log = structlog.get_logger(__name__)
pytestmark = pytest.mark.asyncio
RATE_PER_S = 50
BEFORE_S, AFTER_S = 4.0, 6.0  # of the load; after it the broker's statistics know of the last drain
POST_S, GENERATION_S = 0.5, 0.4  # most ends come before the answers to their POSTs
FEW = 10  # requests that the broker delivers twice
GAP_S = 5.0  # the most that the hub's events may go unheard


class Timed(Team):
    """Knows when each request was sent, and when its end was first heard."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    async def _on_event(self, message: AbstractIncomingMessage) -> None:
        event = json.loads(message.body)
        if name_of(event) == "succeeded":
            self.ended.setdefault(event["subject"], time.monotonic())
        await super()._on_event(message)

    async def produce(self, stop: asyncio.Event) -> None:
        """RATE_PER_S requests a second, however long their confirms take."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as sending:
            while not stop.is_set():
                request_id = f"r{len(self.sent)}"
                self.sent[request_id] = time.monotonic()
                body = {"request_id": request_id, "input": {"prompt": f"clip {request_id}"}}
                sending.create_task(self.send(body))
                await asyncio.sleep(began + len(self.sent) / RATE_PER_S - time.monotonic())
            self.rate = len(self.sent) / (time.monotonic() - began)

    def latencies(self, begun: float, over: float) -> list[float]:
        """From sending to the end, of what was sent in that time, sorted."""
        return sorted(self.ended[name] - sent for name, sent in self.sent.items() if begun <= sent < over)


class Fleet:
    """The replicas in service, and a caller that goes by their readiness."""

    def __init__(self, stack: AsyncExitStack, variables: dict[str, str]) -> None:
        self._stack = stack
        self._variables = variables
        self.all: list[Process] = []
        self.ports: dict[Process, int] = {}  # of those in service
        self.calls = 0

    async def start(self) -> Process:
        """Another replica, ready by its own account."""
        replica = await self._stack.enter_async_context(Process(self._variables))
        self.all.append(replica)
        port = int((await replica.logged("http.listening", 60))["port"])
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while not (await self._readiness(session, port))[0]:
                await asyncio.sleep(0.05)
        self.ports[replica] = port
        return replica

    async def leads(self, replica: Process) -> bool:
        """Whether it says so."""
        async with aiohttp.ClientSession() as session:
            return bool((await self._readiness(session, self.ports[replica]))[1]["leading"])

    async def replace(self, old: Process) -> float:
        """Starts its successor, then drains it; the seconds from SIGTERM to its end."""
        await self.start()
        began = time.monotonic()
        old.terminate()
        assert await old.ended() == 0
        del self.ports[old]
        return time.monotonic() - began

    async def call(self, stop: asyncio.Event) -> None:
        """Reads from every replica that is ready, again and again, each time on a new connection."""
        while not stop.is_set():
            for port in list(self.ports.values()):
                async with aiohttp.ClientSession() as session:
                    try:
                        ready, _ = await self._readiness(session, port)
                    except aiohttp.ClientConnectionError:
                        assert len(self.ports) > 1  # it is gone: the other one answers
                        continue
                    if ready:
                        async with session.get(f"http://127.0.0.1:{port}/v1/generations?limit=1") as answer:
                            assert answer.status == 200
                            self.calls += 1
            await asyncio.sleep(0.02)

    async def _readiness(self, session: aiohttp.ClientSession, port: int) -> tuple[bool, dict[str, Any]]:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200, await answer.json()


def gap_of(watch: StreamWatch) -> float:
    """The longest time without any stream, from the first one on."""
    changes = watch.changes[2:]  # before the first one there is nothing to hear
    return max((after[0] - now[0] for now, after in pairwise(changes) if now[1] == 0), default=0.0)


def percentile(sorted_values: list[float], share: float) -> float:
    """Of at least one."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


def unended(team: Timed, fleet: Fleet) -> list[tuple[str, list[str], list[dict[str, Any]]]]:
    """The requests that have no end: what was heard of each, and what the replicas logged of it."""
    return [
        (
            name,
            [name_of(event) for event in team.of(name)],
            [line for replica in fleet.all for line in replica.lines if line.get("request_id") == name],
        )
        for name in team.sent.keys() - team.ended.keys()
    ]


async def redelivered(servers: Servers, amqp_url: str) -> int:
    """How many requests the broker had to deliver again, by its own statistics, which are 5 s late."""
    path = f"/api/queues/{urlsplit(amqp_url).path[1:]}/{REQUESTS}"
    stats = json.loads(await servers.manage("GET", path))["message_stats"]
    assert stats["deliver"] > 0
    return int(stats.get("redeliver", 0))


async def test_a_rolling_restart_under_fifty_requests_a_second_loses_nothing_and_nobody_notices(
    servers: Servers, amqp_url: str, database_url: str
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=GENERATION_S, render=False))
    async with hub, AsyncExitStack() as stack:
        hub.faults.answer_delay_s = POST_S  # so that every drain finds POSTs under way
        watch = StreamWatch(hub)
        fleet = Fleet(stack, environment(amqp_url, database_url, hub.url))
        old = [await fleet.start(), await fleet.start()]
        await watch.until(1)
        team = await stack.enter_async_context(Timed(amqp_url))
        stop = asyncio.Event()
        load = [asyncio.create_task(team.produce(stop)), asyncio.create_task(fleet.call(stop))]
        await asyncio.sleep(BEFORE_S)
        begun = time.monotonic()
        if await fleet.leads(old[1]):
            old.reverse()  # the leader first: so the lead changes hands as often as it can
        drains = [await fleet.replace(replica) for replica in old]
        over = time.monotonic()
        await asyncio.sleep(AFTER_S)
        stop.set()
        await asyncio.gather(*load)
        try:
            await team.wait_for(lambda heard: len(heard.ended) == len(heard.sent), 30)
        except TimeoutError as error:
            raise AssertionError(f"{unended(team, fleet)}") from error
        await watch.until(1)
        gap = gap_of(watch)
        again = await redelivered(servers, amqp_url)
        for replica in list(fleet.ports):
            replica.terminate()
            assert await replica.ended() == 0

    before, during = team.latencies(0, begun), team.latencies(begun, over)
    figures = {
        "requests": len(team.sent),
        "per_s": round(team.rate, 1),
        "calls": fleet.calls,
        "gap_s": round(gap, 3),
        "streams": len(hub.ledger()["stream_log"]),
        "redelivered": again,
        "drains_s": [round(drain, 2) for drain in drains],
        "p50_s": [round(percentile(each, 0.5), 3) for each in (before, during)],
        "p99_s": [round(percentile(each, 0.99), 3) for each in (before, during)],
        "worst_s": [round(each[-1], 3) for each in (before, during)],
        "warnings": Counter(line["event"] for it in fleet.all for line in it.lines if line["level"] == "warning"),
    }
    log.info("rollout.measured", **figures)  # `pytest -s` shows it; deploy/ROLLOUT.md tells of it
    ends = {(event["subject"], event["id"], name_of(event)) for event in team.events if name_of(event) in TERMINAL}
    assert Counter(subject for subject, _, _ in ends) == dict.fromkeys(team.sent, 1)
    assert {name for _, _, name in ends} == {"succeeded"}
    prompts = Counter(generation["prompt"] for generation in hub.ledger()["generations"])
    assert prompts == {f"clip {request_id}": 1 for request_id in team.sent}
    for replica in fleet.all:
        assert replica.errors == []
        assert [line for line in replica.lines if line["level"] in ("error", "critical")] == []
        assert [line for line in replica.lines if line["event"] == "request.in_doubt"] == []  # a POST that was cut off
    assert team.rate > 0.9 * RATE_PER_S, figures
    assert fleet.calls > 50, figures
    assert again <= FEW, figures
    assert gap < GAP_S, figures
