"""Many in flight: how soon a replica is ready, what a sweep and a gap cost, how much memory that takes.

    python -m tests.bench.in_flight [generations] [missed]

The generations are put into the sandbox and the database at once; the replica is `drover serve`, a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time

from service.sandbox import Faults, Sandbox, SandboxOptions
from tests.support import crowd
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment
from tests.support.servers import Servers


async def measure(size: int, missed: int) -> str:
    """The report."""
    servers = Servers.up()
    template = "drover_bench"
    await servers.make_template(template)
    database_url, amqp_url = await servers.make_database(template), await servers.make_vhost()
    try:
        async with Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False)) as hub, Team(amqp_url) as team:
            generations = await crowd.in_flight(hub, database_url, size)
            began = time.monotonic()
            async with Process(environment(amqp_url, database_url, hub.url)) as drover:
                await drover.ready()
                ready_s = time.monotonic() - began
                sweep = await drover.logged("sweep.done", 120)
                hub.faults = Faults(stream_refused=True)
                hub.cut_streams()
                await drover.logged("stream.lost")
                crowd.end(hub, generations[:missed])
                calls = hub.hub.ledger.calls.copy()
                hub.faults = Faults()
                returned = time.monotonic()
                await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) >= missed, 120)
                healed_s = time.monotonic() - returned
                peak = crowd.peak_bytes(drover.process.pid)
                calls = hub.hub.ledger.calls - calls
    finally:
        await servers.drop_database(database_url)
        await servers.drop_vhost(amqp_url)
    return (
        f"{size} in flight: ready after {ready_s:.1f} s, first sweep {sweep['seconds']:.1f} s; a gap in which {missed} "
        f"ended: all events {healed_s:.1f} s after the stream may return, {calls['list']} list, {calls['get']} "
        f"fetches; peak memory {peak / 1024 / 1024:.0f} MiB"
    )


def main() -> None:
    """Prints one line for each size."""
    sizes = [int(sys.argv[1])] if len(sys.argv) > 1 else [1000, 20_000, 100_000]
    missed = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    for size in sizes:
        print(asyncio.run(measure(size, missed)))  # noqa: T201 - the report


if __name__ == "__main__":
    main()
