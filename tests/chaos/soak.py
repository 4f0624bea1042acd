"""The soak: an hour's worth of traffic, compressed, with a stream that is cut and a hub that errs, but nobody killed.

It comes in waves; at rest behind each, memory and connections must be level from the second quarter to the end.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.chaos.campaign import Campaign
from tests.chaos.findings import Finding
from tests.chaos.level import Trend, trend
from tests.chaos.schedule import Options
from tests.chaos.stage import Stage
from tests.chaos.troupe import Troupe

REQUESTS, SECONDS, WAVES = 18_000, 180.0, 10  # five a second for an hour, twenty times as fast
REST_S = 6.0  # connections to the hub are kept for four seconds
ESTABLISHED = "01"

Series = list[tuple[float, float]]


def soak(seed: int, requests: int = REQUESTS, seconds: float = SECONDS, share: float = 0.02) -> Campaign:
    """The campaign that it plays."""
    options = Options(seconds=seconds, quiet_s=1.0, kills=0, freezes=0, broker_kills=0, database_restarts=0)
    return Campaign(seed=seed, requests=requests, replicas=2, share=share, waves=WAVES, options=options)


class Gauges:
    """What is measured behind every wave, when all is at rest: so that a burst does not pass for a leak."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = defaultdict(list)

    async def measure(self, stage: Stage, troupe: Troupe) -> None:
        """One value of everything."""
        await asyncio.sleep(REST_S)
        for name, value in _of_processes(troupe, urlsplit(stage.hub.url).port or 0):
            self._note(name, value)
        self._note("connections to Postgres", await _to_postgres(stage.database_url))
        for name, count in (await _to_rabbit(stage)).items():
            self._note(f"{name} at RabbitMQ", count)

    def trends(self) -> list[Trend]:
        """The verdict on each: memory may gain a twentieth, counts of connections what a pool breathes."""
        found = []
        for name, series in self.series.items():
            memory = "memory" in name
            share, least = (0.05, 4.0) if memory else (0.1, 3.0)
            found.append(trend(name, "MiB" if memory else "", series, share=share, least=least))
        return found

    def _note(self, name: str, value: float) -> None:
        self.series[name].append((float(len(self.series[name])), value))


def rising(trends: list[Trend]) -> list[Finding]:
    """What is not level."""
    return [
        Finding("not level", one.name, f"rises by {one.rise:.1f} {one.unit}, {one.allowed:.1f} are allowed")
        for one in trends
        if not one.level
    ]


def figures(trends: list[Trend]) -> str:
    """A table for people."""
    lines = [
        f"  {'from the second quarter to the end':<40} {'first':>8} {'mean':>8} {'last':>8} {'rise':>8} {'allowed':>8}"
    ]
    lines += [
        f"  {one.name + (', ' + one.unit if one.unit else ''):<40} "
        f"{one.first:8.1f} {one.mean:8.1f} {one.last:8.1f} {one.rise:8.1f} {one.allowed:8.1f}"
        for one in trends
    ]
    return "\n".join(lines)


def _of_processes(troupe: Troupe, hub_port: int) -> Iterator[tuple[str, float]]:
    for replica in troupe.present:
        folder = Path(f"/proc/{replica.pid}")
        told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        yield f"memory of {replica.name}", int(told["VmRSS"].split()[0]) / 1024
        yield f"peak of the memory of {replica.name}", int(told["VmHWM"].split()[0]) / 1024
        (folder / "clear_refs").write_text("5")  # the peak is counted anew
        yield f"open files of {replica.name}", sum(1 for _ in (folder / "fd").iterdir())
    yield "connections to the hub", _established_to(hub_port)


def _established_to(port: int) -> int:
    """TCP connections of this machine whose far end is that port."""
    wanted = f"{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == ESTABLISHED and row[2].endswith(f":{wanted}") for row in rows)


async def _to_postgres(database_url: str) -> int:
    database = await asyncpg.connect(database_url)
    try:
        count: int = await database.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'drover'"
        )
    finally:
        await database.close()
    return count


async def _to_rabbit(stage: Stage) -> dict[str, int]:
    vhost = urlsplit(stage.amqp_url).path[1:]
    counts = {}
    for kind in ("connections", "channels"):
        counts[kind] = len(json.loads(await stage.servers.manage("GET", f"/api/vhosts/{vhost}/{kind}")))
    return counts
