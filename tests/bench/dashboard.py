"""The dashboard's panels from a real run: three minutes of load on two replicas, with faults, scraped every second.

    python -m tests.bench.dashboard                       pictures in .local/bench/dashboard
    python -m tests.bench.dashboard --out deploy/observability/pictures

The queries are those of dashboards/drover.json, answered by a real Prometheus; what the hub does is the stand-in's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from deploy.local.ports import choose
from service.sandbox import Faults
from service.sandbox.schemas import STILL
from service.telemetry import configure_logging
from tests.bench.drawing import Drawn, Mark, draw
from tests.chaos.hub import HubProcess
from tests.chaos.stage import Stage, servers_up, staged
from tests.deploy.grafana import rows, substituted
from tests.support.bus import Team
from tests.support.prometheus import Prometheus
from tests.support.replica import Process, environment

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS, RATE, TICK_S, STEP_S, WINDOW = 190, 20, 0.25, 2.0, "10s"
USUAL = Faults(posts_empty=0.03)  # refusals of the hub: requests that fail
LIMIT = 300  # generations in flight, all replicas together
NAMES = {"Is it working?": "working", "Where is it stuck?": "stuck", "What does it cost?": "cost"}
MOST_LINES_IN_A_PICTURE = 24  # of the dashboard's grid


class Run:
    """What is done to the system, and when."""

    def __init__(self, hub: HubProcess, stage: Stage, ports: dict[str, int]) -> None:
        self._hub = hub
        self._stage = stage
        self._ports = ports
        self._replicas: dict[str, Process] = {}
        self.marks: list[Mark] = []
        self.began = 0.0

    def _variables(self, name: str) -> dict[str, str]:
        limits = {"DROVER_MAX_IN_FLIGHT": str(LIMIT), "DROVER_DOUBT_GRACE_S": "4", "DROVER_RECONCILE_INTERVAL_S": "15"}
        port = {"DROVER_HTTP_PORT": str(self._ports[name])}
        return environment(self._stage.amqp_url, self._stage.database_url, self._hub.url, **limits, **port)

    @asynccontextmanager
    async def replicas(self) -> AsyncIterator[None]:
        """Two, ready; the first one leads."""
        async with contextlib.AsyncExitStack() as stack:
            for name in self._ports:
                self._replicas[name] = await stack.enter_async_context(Process(self._variables(name)))
                await self._replicas[name].ready()
            yield

    async def play(self, team: Team) -> None:
        """The load, and the faults in their turn."""
        self.began = time.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load(team))
            for at, letter, lasts_s, fault in (
                (25, "a", 8, self._deaf),
                (55, "b", 12, self._throttled),
                (85, "c", 10, self._losing),
                (110, "d", 12, self._broken),
                (138, "e", 8, self._restarted),
                (162, "f", 6, self._without_database),
            ):
                group.create_task(self._at(at, letter, lasts_s, fault))

    async def _at(self, at: float, letter: str, lasts_s: float, fault: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(at)
        start = time.time() - self.began
        await fault()
        await asyncio.sleep(max(0.0, at + lasts_s - (time.time() - self.began)))
        await self._hub.misbehave(USUAL)
        self.marks.append(Mark(letter, start, time.time() - self.began))

    async def _deaf(self) -> None:
        await self._hub.misbehave(Faults(stream_refused=True))
        await self._hub.cut_streams()

    async def _throttled(self) -> None:
        await self._hub.misbehave(Faults(posts_limited=1.0, retry_after="2"))

    async def _losing(self) -> None:
        await self._hub.misbehave(Faults(answers_lost=0.2))

    async def _broken(self) -> None:
        await self._hub.misbehave(Faults(post_status=503))

    async def _restarted(self) -> None:
        """SIGTERM to the leader; it starts again on its port."""
        name, leader = next(iter(self._replicas.items()))
        leader.terminate()
        await leader.ended()
        again = Process(self._variables(name))
        self._replicas[name] = again
        await again.__aenter__()
        await again.ready()

    async def _without_database(self) -> None:
        """It is shut down at once, and comes back after four seconds."""
        await self._stage.restart_database(4.0)

    async def _load(self, team: Team) -> None:
        sent = 0
        while (passed := time.time() - self.began) < SECONDS:
            due = int(passed * RATE)
            await team.send_many([_request(number) for number in range(sent, due)])
            sent = due
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """The replica that was started again."""
        for process in self._replicas.values():
            await process.__aexit__()


def _request(number: int) -> dict[str, Any]:
    """Films, stills, sometimes several at a time, and sometimes nonsense."""
    request = {"request_id": f"r{number}", "input": {"prompt": f"clip {number}"}, "num_generations": 1 + number % 2}
    if number % 3 == 0:
        request["model"] = STILL
    if number % 50 == 7:
        request["input"] = {"prompt": f"clip {number}", "num_frames": 7000}
    return request


async def measure(out: Path) -> None:
    """Runs, asks, draws."""
    ports = choose(("first", "second"), {})
    async with servers_up(REPOSITORY / ".local" / "bench" / "dashboard-servers") as stack:
        hub = HubProcess(seed=0, delay_s=8.0, jitter_s=4.0, faults=USUAL)
        async with hub, staged(stack, hub) as stage:
            run = Run(hub, stage, ports)
            targets = [f"127.0.0.1:{port}" for port in ports.values()]
            async with run.replicas(), Prometheus(targets) as prometheus, Team(stage.amqp_url) as team:
                try:
                    await prometheus.until("count(drover_leading) == 2 and sum(drover_leading) == 1")
                    await run.play(team)
                    await picture(prometheus, run, out)
                finally:
                    await run.close()


async def picture(prometheus: Prometheus, run: Run, out: Path) -> None:
    """One or more pictures of each row."""
    for title, panels in rows().items():
        drawn = [
            Drawn(panel, [await _asked(prometheus, run, panel, each) for each in panel["targets"]]) for panel in panels
        ]
        top = panels[0]["gridPos"]["y"]
        parts: dict[int, list[Drawn]] = {}
        for each in drawn:
            parts.setdefault((each.panel["gridPos"]["y"] - top) // MOST_LINES_IN_A_PICTURE, []).append(each)
        for part, some in parts.items():
            name = NAMES[title] + (f"-{part + 1}" if len(parts) > 1 else "")
            draw(some, run.marks, run.began, SECONDS, out / f"{name}.png")


async def _asked(
    prometheus: Prometheus, run: Run, panel: dict[str, Any], target: dict[str, Any]
) -> list[dict[str, Any]]:
    expression = substituted(target["expr"], WINDOW)
    if panel["type"] == "stat":
        return await prometheus.query(expression, run.began + SECONDS)
    return await prometheus.query_range(expression, run.began, run.began + SECONDS, STEP_S)


def main() -> None:
    """Leaves the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dashboard", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "bench" / "dashboard")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    configure_logging("json", logging.CRITICAL)
    uvloop.run(measure(options.out))


if __name__ == "__main__":
    main()
