"""What a replica costs that has nothing to do: CPU, and transactions at the database.

    python -m tests.bench.at_rest [seconds]

Of two replicas, since the one that leads does more; each is `drover serve`, a process of its own.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg

from service.sandbox import Sandbox, SandboxOptions
from tests.bench.usage import cpu_of
from tests.support.replica import KEY, Process, environment
from tests.support.servers import Servers

SETTLED_S = 10.0
# What other sessions have ended, the idle ones too: a backend tells of its own once it has been idle for a second.
ENDED = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"


async def measure(seconds: float) -> str:
    """The report."""
    servers = Servers.up()
    template = "drover_bench"
    await servers.make_template(template)
    database_url, amqp_url = await servers.make_database(template), await servers.make_vhost()
    variables = environment(amqp_url, database_url, "")
    try:
        async with Sandbox(SandboxOptions(api_key=KEY, render=False)) as hub:
            variables["OXEN_BASE_URL"] = hub.url
            async with Process(variables) as leader, Process(variables) as other:
                for replica in (leader, other):
                    await replica.ready()
                await asyncio.sleep(SETTLED_S)
                watcher = await asyncpg.connect(database_url)
                cpu = [cpu_of(replica.process.pid) for replica in (leader, other)]
                before = await watcher.fetchval(ENDED)
                await asyncio.sleep(seconds)
                ended = await watcher.fetchval(ENDED) - before - 1  # the question itself
                used = [cpu_of(r.process.pid) - was for r, was in zip((leader, other), cpu, strict=True)]
                await watcher.close()
    finally:
        await servers.drop_database(database_url)
        await servers.drop_vhost(amqp_url)
    shares = ", ".join(f"{100 * spent / seconds:.2f} %" for spent in used)
    return (
        f"at rest for {seconds:g} s: {shares} of a core (the one that leads, another); "
        f"{ended / seconds / 2:.2f} transactions a second and replica"
    )


def main() -> None:
    """Prints one line."""
    print(asyncio.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)))  # noqa: T201 - the report


if __name__ == "__main__":
    main()
