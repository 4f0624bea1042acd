"""Many clients on `GET /v1/events`: how soon each hears of its own, and what a client costs.

    python -m tests.bench.following [clients] [requests a second] [seconds]

Each client follows one request, ten follow everything, one does not read. The replica and the hub are processes of
their own; the clients are this one, on the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Self

import orjson

from service.sandbox import Faults
from tests.bench.traffic import Traffic
from tests.bench.usage import cpu_of
from tests.chaos.hub import HubProcess
from tests.support.crowd import peak_bytes
from tests.support.replica import Process, environment
from tests.support.servers import Servers

EVERYTHING = 10
END_S = 60.0


class Client:
    """A connection that notes when the end of each request was told on it."""

    def __init__(self, port: int, request_id: str | None) -> None:
        self._port = port
        self._query = "" if request_id is None else f"?request_id={request_id}"
        self.ended: dict[str, float] = {}
        self.events = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"GET /v1/events{self._query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await self._reader.readuntil(b"retry: 1000\n\n")
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()

    async def _read(self) -> None:
        kind = b""
        while line := await self._reader.readline():
            if line.startswith(b"event: "):
                kind = line[7:-1]
                self.events += 1
            elif line.startswith(b"data: ") and kind not in (b"generation.accepted", b"generation.submitted"):
                self.ended.setdefault(orjson.loads(line[6:])["subject"], time.time())


async def measure(clients: int, rate: float, seconds: float) -> str:
    """The report."""
    servers = Servers.up()
    await servers.make_template("drover_bench")
    database_url, amqp_url = await servers.make_database("drover_bench"), await servers.make_vhost()
    ids = [f"followed-{number}" for number in range(int(rate * seconds))]
    try:
        async with (
            HubProcess(seed=0, delay_s=1.0, jitter_s=0.0, faults=Faults()) as hub,
            Process(environment(amqp_url, database_url, hub.url)) as drover,
            AsyncExitStack() as stack,
        ):
            await drover.ready()
            port = (await drover.logged("http.listening"))["port"]
            pid = drover.process.pid
            alone = peak_bytes(pid)
            _, idle = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            idle.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            followers = [await stack.enter_async_context(Client(port, name)) for name in ids[:clients]]
            audience = [await stack.enter_async_context(Client(port, None)) for _ in range(EVERYTHING)]
            joined, cpu = peak_bytes(pid), cpu_of(pid)
            async with Traffic(amqp_url) as traffic:
                await traffic.steadily(ids, rate, 1)
                async with asyncio.timeout(END_S):
                    while len(traffic.ended) < len(ids) or not all(len(one.ended) == len(ids) for one in audience):
                        await asyncio.sleep(0.1)
            ledger = await hub.ledger()
            told = _told(ledger, followers, audience)
            lost = sum(len(one.ended) == 0 for one in followers)
            cpu = cpu_of(pid) - cpu
            heard = sum(one.events for one in (*followers, *audience))
            report = (
                f"{len(followers)} clients with one request each, {EVERYTHING} with all, {rate:g}/s for {seconds:g} s: "
                f"after the hub's end p50 {_at(told, 50):.0f}, p99 {_at(told, 99):.0f} ms, not told {lost}; "
                f"{heard} events told; streams at the hub {ledger['streams']}; "
                f"{(joined - alone) / 1024 / (clients + EVERYTHING):.0f} KiB a client that waits; peak "
                f"{peak_bytes(pid) / 1024 / 1024:.0f} MiB (without clients {alone / 1024 / 1024:.0f}); CPU "
                f"{1000 * cpu / len(ids):.2f} s per 1,000 requests"
            )
            idle.close()
    finally:
        await servers.drop_database(database_url)
        await servers.drop_vhost(amqp_url)
    return report


def _told(ledger: dict[str, Any], *groups: list[Client]) -> list[float]:
    """Milliseconds from the hub's end of a generation to each client that was told."""
    ends = {entry["prompt"].split(" ", 1)[0]: entry["ended_at"] for entry in ledger["generations"]}
    heard = (item for group in groups for one in group for item in one.ended.items())
    return sorted(1000 * (moment - ends[name]) for name, moment in heard)


def _at(values: list[float], share: int) -> float:
    return statistics.quantiles(values, n=100)[share - 1]


def main() -> None:
    """Prints one line."""
    given = [float(word) for word in sys.argv[1:]]
    clients, rate, seconds = [*given, *(1000.0, 100.0, 15.0)[len(given) :]]
    print(asyncio.run(measure(int(clients), rate, seconds)))  # noqa: T201 - the report


if __name__ == "__main__":
    main()
