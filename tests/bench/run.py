"""One run: an empty database and vhost, a hub, one contestant and one load; and what it came to."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import asyncpg
from uuid_utils.compat import uuid7

from deploy.local.stack import Stack
from service.sandbox import Faults
from tests.bench.scenarios import FILLING, NAMING, Scenario
from tests.bench.traffic import Traffic
from tests.bench.usage import Usage
from tests.chaos.hub import HubProcess
from tests.chaos.stage import Stage, staged
from tests.support.crowd import peak_bytes
from tests.support.replica import OWN_VARIABLES, environment

CONTESTANTS = {"drover": ("service", "serve"), "floor": ("tests.bench.floor",)}
LOOK_S = 0.25
BUCKET_S = 0.5
LINGER_S = 1.0  # after the last end, for what comes twice
FILL_STEP = 50_000
VACUUMING = "select exists (select from pg_stat_activity where backend_type = 'autovacuum worker')"


async def run(stack: Stack, scenario: Scenario, contestant: str, folder: Path) -> dict[str, Any]:
    """The figures of one run; the contestant's output is left in the folder."""
    hub = HubProcess(seed=0, delay_s=scenario.delay_s, jitter_s=0.0, faults=Faults())
    async with hub, staged(stack, hub) as stage:
        variables = environment(stage.amqp_url, stage.database_url, hub.url)
        await finished("service", "topology", variables=variables)
        await fill(stage.database_url, scenario)
        async with Traffic(stage.amqp_url) as traffic:
            log = folder / f"{file_name(scenario.letter)}-{contestant}.log"
            return await _measured(stack, stage, traffic, scenario, contestant, variables, log)


async def _measured(
    stack: Stack,
    stage: Stage,
    traffic: Traffic,
    scenario: Scenario,
    contestant: str,
    variables: Mapping[str, str],
    log: Path,
) -> dict[str, Any]:
    ids = [str(uuid7() if scenario.rising else uuid4()) for _ in range(scenario.requests)]
    if scenario.rate is None:
        await traffic.burst(ids, scenario.outputs)
    with log.open("wb") as output:
        process = await started(*CONTESTANTS[contestant], variables=variables, output=output)
    try:
        roots = {"contestant": process.pid, "postgres": stack.postgres.pid or 0, "rabbitmq": stack.rabbit.pid or 0}
        async with Usage(roots) as usage:
            if scenario.rate is not None:
                while await traffic.consumers() == 0:
                    await asyncio.sleep(LOOK_S)
                await asyncio.sleep(1.0)  # what a start costs is not what is measured
                await traffic.steadily(ids, scenario.rate, scenario.outputs)
            await _all_ended(traffic, scenario, process)
            await asyncio.sleep(LINGER_S)
            peak = peak_bytes(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 40)
    return figures(scenario, contestant, traffic, await stage.hub.ledger(), usage, peak)


def figures(
    scenario: Scenario, contestant: str, traffic: Traffic, ledger: dict[str, Any], usage: Usage, peak: int
) -> dict[str, Any]:
    """What a run came to. Times in seconds, latencies in milliseconds, memory in bytes."""
    generations = ledger["generations"]
    posted = min(entry["posted_at"] for entry in generations)
    ends: dict[str, float] = {}
    for entry in generations:
        request_id = entry["prompt"].split(" ", 1)[0]
        ends[request_id] = max(ends.get(request_id, 0.0), entry["ended_at"] or 0.0)
    began = posted if scenario.rate is None else min(traffic.published.values())
    last = max(traffic.ended.values(), default=began)
    added = sorted(1000 * (heard - ends[key]) for key, heard in traffic.ended.items() if key in ends)
    count = len(traffic.ended)
    cpu = usage.cpu(began, last)
    buckets = Counter(int((heard - began) / BUCKET_S) for heard in traffic.ended.values())
    return {
        "scenario": asdict(scenario),
        "contestant": contestant,
        "ended": count,
        "lost": scenario.requests - count,
        "repeated": traffic.repeated,
        "failed": traffic.failed,
        "events": traffic.events,
        "seconds": last - began,
        "per_s": count / (last - began) if last > began else 0.0,
        "posts_per_s": _rate(sorted(entry["posted_at"] for entry in generations)),
        "cpu_per_1000": {name: 1000 * seconds / max(count, 1) for name, seconds in cpu.items()},
        "added_ms": quantiles(added),
        "peak_bytes": peak,
        "calls_per_generation": sum(ledger["calls"].get(kind, 0) for kind in ("post", "get", "list", "delete"))
        / max(len(generations), 1),
        "per_s_over_time": [buckets[index] / BUCKET_S for index in range(max(buckets, default=0) + 1)],
        "added_ms_distribution": [round(_quantile(added, share / 200), 3) for share in range(201)] if added else [],
    }


def _rate(moments: list[float]) -> float:
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 and moments[-1] > moments[0] else 0.0


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantiles(ordered: list[float]) -> dict[str, float]:
    """Median, p99 and maximum of ascending values; empty without any."""
    if not ordered:
        return {}
    return {"p50": statistics.median(ordered), "p99": _quantile(ordered, 0.99), "max": ordered[-1]}


def file_name(letter: str) -> str:
    """A scenario's name as a part of a file's."""
    return letter.replace("/", "-")


async def fill(database_url: str, scenario: Scenario) -> None:
    """Puts the scenario's ended requests into the database, with all that belongs to them."""
    if not scenario.ended:
        return
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(NAMING)
        for first in range(1, scenario.ended + 1, FILL_STEP):
            for statement in FILLING:
                last = min(scenario.ended, first + FILL_STEP - 1)
                await connection.execute(statement, first, last, scenario.rising)
        await connection.execute("vacuum analyze")
        await connection.execute("checkpoint")
        await asyncio.to_thread(os.sync)  # gigabytes on their way to the disk would stall whatever comes after them
        while await connection.fetchval(VACUUMING):
            await asyncio.sleep(LOOK_S)
    finally:
        await connection.close()


async def _all_ended(traffic: Traffic, scenario: Scenario, process: asyncio.subprocess.Process) -> None:
    """Waits for them; not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(scenario.limit_s):
            while len(traffic.ended) < scenario.requests:
                if process.returncode is not None:
                    raise RuntimeError(f"The contestant ended with {process.returncode}; see its log.")
                await asyncio.sleep(LOOK_S)


async def started(*module: str, variables: Mapping[str, str], output: int | BinaryIO) -> asyncio.subprocess.Process:
    """`python -m` of the module, with nothing of our own environment that is a setting."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module), env={**inherited, **variables}, stdout=output, stderr=output
    )


async def finished(*module: str, variables: Mapping[str, str]) -> None:
    """The same, to its end. RuntimeError when that is not a good one."""
    process = await started(*module, variables=variables, output=asyncio.subprocess.DEVNULL)
    if code := await process.wait():
        raise RuntimeError(f"{' '.join(module)} ended with {code}.")
