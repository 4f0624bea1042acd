"""Completion to event on an idle system: from the hub's end of a generation to the event in a consumer's hands.

    python -m tests.bench.idle [requests]

One request at a time through a real broker, database, sandbox and `drover serve`; both moments are read from this
machine's clock, the consumer's in this process, the hub's from the sandbox's ledger.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, Process, environment
from tests.support.servers import Servers

DELAY_S = 0.1
WARM_UP = 10


async def measure(requests: int) -> list[float]:
    """Seconds from completion to event, one for each request after the warm-up."""
    servers = Servers.up()
    template = "drover_bench"
    await servers.make_template(template)
    database_url, amqp_url = await servers.make_database(template), await servers.make_vhost()
    try:
        async with Sandbox(SandboxOptions(api_key=KEY, delay_s=DELAY_S, render=False)) as hub:
            async with Process(environment(amqp_url, database_url, hub.url)) as drover:
                await drover.ready()
                heard = await _one_by_one(amqp_url, requests + WARM_UP)
                drover.terminate()
                await drover.ended()
            ended = {g["parameters"]["prompt"]: g["ended_at"] for g in hub.ledger()["generations"]}
    finally:
        await servers.drop_database(database_url)
        await servers.drop_vhost(amqp_url)
    return [at - ended[prompt] for prompt, at in list(heard.items())[WARM_UP:]]


async def _one_by_one(amqp_url: str, requests: int) -> dict[str, float]:
    heard: dict[str, float] = {}
    async with Team(amqp_url) as team:
        for number in range(requests):
            request_id = f"idle-{number}"
            await team.send({"request_id": request_id, "input": {"prompt": request_id}})
            end: dict[str, Any] = await team.end_of(request_id)
            heard[request_id] = time.time()
            if name_of(end) != "succeeded":
                raise RuntimeError(f"{request_id} ended as {end['type']}")
    return heard


def main() -> None:
    """Prints the distribution in milliseconds."""
    took = sorted(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    print(  # noqa: T201 - the report
        f"completion to event, {len(took)} requests one at a time: median {statistics.median(took) * 1000:.1f} ms, "
        f"p99 {p99 * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms"
    )


if __name__ == "__main__":
    main()
