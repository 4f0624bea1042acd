"""What one, two and three replicas do, and what each process pays for it: where the ceilings are.

    python -m tests.bench.replicas                           a burst of 5,000 and 200/s; 1, 2, 3 replicas; two minutes
    python -m tests.bench.replicas --bursts 20000 --rates 200 400 -r 3
    python -m tests.bench.replicas --counts 2 --brokers 3    before a RabbitMQ cluster, each node's CPU by itself

The load comes once every replica consumes, so that starts are not measured. On a machine with fewer cores than
processes the throughput says little; CPU seconds by process do, and the ceilings are computed from them. In --out: a
JSON file, a table, logs. Nothing in it is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop

from deploy.local.rabbit import RabbitServer
from deploy.local.stack import Stack
from service.sandbox import Faults
from service.telemetry import configure_logging
from tests.bench.ceilings import Member, ceilings
from tests.bench.run import LINGER_S, LOOK_S, finished, quantiles, started
from tests.bench.scenarios import Scenario, steady
from tests.bench.traffic import Traffic
from tests.bench.usage import Usage
from tests.chaos.hub import HubProcess
from tests.chaos.stage import Stage, servers_up, staged
from tests.support.cluster import Balancer, private_cluster
from tests.support.crowd import peak_bytes
from tests.support.replica import environment, get

REPOSITORY = Path(__file__).resolve().parents[2]
READY_S = 60.0
SETTLED_S = 2.0  # behind a start: the lease is taken, the stream is open
TAKEN = r'^drover_requests_total\{state="accepted"\} (\S+)'
SUBMITTED = r'^drover_submit_duration_seconds_count\{outcome="accepted"\} (\S+)'
LEADING = r"^drover_leading (\S+)"
RELAYING = r'^drover_batch_duration_seconds_sum\{step="relay"\} (\S+)'


@dataclass(frozen=True, slots=True)
class Broker:
    """Where clients connect, and the processes behind it by name."""

    url: str
    roots: Mapping[str, int]


class Replica:
    """`drover serve`, its log in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    async def metrics(self) -> str:
        """What it says of itself; empty while it does not serve."""
        port = re.search(r'"port": ?(\d+)[^\n]*"http.listening"|"http.listening"[^\n]*"port": ?(\d+)', self._text())
        if port is None:
            return ""
        return (await get(f"http://127.0.0.1:{port[1] or port[2]}/metrics"))[1].decode()

    async def ready(self) -> None:
        """Waits until it consumes."""
        async with asyncio.timeout(READY_S):
            while '"consumer.started"' not in self._text() or "drover_consuming 1" not in await self.metrics():
                if self.process.returncode is not None:
                    raise RuntimeError(f"A replica ended with {self.process.returncode}; see {self._log}.")
                await asyncio.sleep(LOOK_S)

    def _text(self) -> str:
        return self._log.read_text()


def _number(pattern: str, metrics: str) -> float:
    found = re.search(pattern, metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


@asynccontextmanager
async def _replicas(count: int, variables: Mapping[str, str], folder: Path) -> AsyncIterator[list[Replica]]:
    """So many, all ready; drained afterwards."""
    replicas: list[Replica] = []
    try:
        for number in range(count):
            log = folder / f"replica-{number + 1}.log"
            with log.open("wb") as output:
                replicas.append(Replica(await started("service", "serve", variables=variables, output=output), log))
        await asyncio.gather(*(replica.ready() for replica in replicas))
        await asyncio.sleep(SETTLED_S)
        yield replicas
    finally:
        for replica in replicas:
            with suppress(ProcessLookupError):
                replica.process.terminate()
        for replica in replicas:
            with suppress(TimeoutError):
                await asyncio.wait_for(replica.process.wait(), 40)


@asynccontextmanager
async def _broker(stack: Stack, stage: Stage, nodes: int) -> AsyncIterator[Broker]:
    """The stack's own, or a cluster of three behind a balancer (which runs here, and is counted with the load)."""
    if nodes == 1:
        yield Broker(stage.amqp_url, {"rabbitmq": stack.rabbit.pid or 0})
        return
    with contextlib.ExitStack() as held:
        cluster = await asyncio.to_thread(held.enter_context, private_cluster())
        async with Balancer(cluster) as balancer:
            cluster.create_vhost("bench")
            yield Broker(balancer.url("bench"), {_node(node): node.pid or 0 for node in cluster.nodes})


def _node(server: RabbitServer) -> str:
    return f"rabbitmq {server.name.partition('@')[0]}"


async def run(stack: Stack, scenario: Scenario, count: int, nodes: int, folder: Path) -> dict[str, Any]:
    """The figures of one run."""
    async with AsyncExitStack() as held:
        hub = await held.enter_async_context(
            HubProcess(seed=0, delay_s=scenario.delay_s, jitter_s=0.0, faults=Faults())
        )
        stage = await held.enter_async_context(staged(stack, hub))
        broker = await held.enter_async_context(_broker(stack, stage, nodes))
        variables = environment(broker.url, stage.database_url, hub.url)
        await finished("service", "topology", variables=variables)
        traffic = await held.enter_async_context(Traffic(broker.url))
        replicas = await held.enter_async_context(_replicas(count, variables, folder))
        roots = {f"replica {number + 1}": replica.process.pid for number, replica in enumerate(replicas)}
        servers = {"postgres": stack.postgres.pid or 0, **broker.roots, "hub": hub.pid}
        ids = [str(uuid4()) for _ in range(scenario.requests)]
        async with Usage({**roots, **servers}, {"load": os.getpid()}) as usage:
            if scenario.rate is None:
                await traffic.burst(ids, scenario.outputs)
            else:
                await traffic.steadily(ids, scenario.rate, scenario.outputs)
            await _all_ended(traffic, scenario, replicas)
            await asyncio.sleep(LINGER_S)
            told = [await replica.metrics() for replica in replicas]
            peaks = [peak_bytes(replica.process.pid) for replica in replicas]
        return _figures(scenario, nodes, traffic, await hub.ledger(), usage, told, peaks)


async def _all_ended(traffic: Traffic, scenario: Scenario, replicas: list[Replica]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(scenario.limit_s):
            while len(traffic.ended) < scenario.requests:
                if ended := [one.process.returncode for one in replicas if one.process.returncode is not None]:
                    raise RuntimeError(f"A replica ended with {ended[0]}; see its log.")
                await asyncio.sleep(LOOK_S)


def _figures(
    scenario: Scenario,
    nodes: int,
    traffic: Traffic,
    ledger: dict[str, Any],
    usage: Usage,
    told: list[str],
    peaks: list[int],
) -> dict[str, Any]:
    """What a run came to. Latencies in milliseconds, CPU in seconds for 1,000 requests but in `members`."""
    began, last = min(traffic.published.values()), max(traffic.ended.values(), default=0.0)
    count = len(traffic.ended)
    cpu = usage.cpu(began, last)
    ends = {entry["prompt"].split(" ", 1)[0]: entry["ended_at"] or 0.0 for entry in ledger["generations"]}
    members = [
        Member(
            _number(LEADING, metrics) == 1,
            cpu[f"replica {number + 1}"],
            (_number(TAKEN, metrics) + _number(SUBMITTED, metrics)) / 2,
        )
        for number, metrics in enumerate(told)
    ]
    per_1000 = {name: 1000 * seconds / max(count, 1) for name, seconds in cpu.items()}
    if nodes > 1:
        per_1000["rabbitmq"] = sum(spent for name, spent in per_1000.items() if name.startswith("rabbitmq"))
    return {
        "scenario": asdict(scenario),
        "replicas": len(told),
        "brokers": nodes,
        "ended": count,
        "lost": scenario.requests - count,
        "repeated": traffic.repeated,
        "seconds": last - began,
        "per_s": count / (last - began) if last > began else 0.0,
        "added_ms": quantiles(
            sorted(1000 * (heard - ends[key]) for key, heard in traffic.ended.items() if key in ends)
        ),
        "members": [asdict(member) for member in members],
        "submitted": [_number(SUBMITTED, metrics) for metrics in told],
        "taken_in": [_number(TAKEN, metrics) for metrics in told],
        "relay_busy": sum(_number(RELAYING, metrics) for metrics in told) / (last - began),  # 2 at the most
        "cpu_per_1000": per_1000,
        "peak_bytes": peaks,
        "calls": ledger["calls"],
    }


COLUMNS = (
    *("scenario", "replicas", "brokers", "ended/s", "added p50 ms", "p99 ms"),
    *(
        "leader",
        "followers",
        "all replicas",
        "leader took",
        "relay busy",
        "Postgres",
        "RabbitMQ",
        "hub",
        "load",
        "lost",
    ),
)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown, a row for each run; CPU in seconds for 1,000 requests."""
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS), *(" | ".join(_cells(run)) for run in runs)]
    return "\n".join(f"| {line} |" for line in lines)


def _cells(run: dict[str, Any]) -> list[str]:
    thousands = max(run["ended"], 1) / 1000
    leading = [member for member in run["members"] if member["leads"]]
    following = [member for member in run["members"] if not member["leads"]]
    taken = sum(member["taken"] for member in run["members"]) or 1.0
    cpu = run["cpu_per_1000"]
    return [
        run["scenario"]["letter"],
        str(run["replicas"]),
        str(run["brokers"]),
        f"{run['per_s']:,.0f}",
        f"{run['added_ms'].get('p50', 0.0):,.1f}",
        f"{run['added_ms'].get('p99', 0.0):,.1f}",
        ", ".join(f"{member['cpu_s'] / thousands:.2f}" for member in leading) or "none at the end",
        ", ".join(f"{member['cpu_s'] / thousands:.2f}" for member in following) or "-",
        f"{sum(member['cpu_s'] for member in run['members']) / thousands:.2f}",
        f"{100 * sum(member['taken'] for member in leading) / taken:.0f} %",
        f"{100 * run['relay_busy']:.0f} %",
        *(f"{cpu[name]:.2f}" for name in ("postgres", "rabbitmq", "hub", "load")),
        str(run["lost"]),
    ]


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every load with every number of replicas, in turns, so that all meet the machine as it is."""
    bursts = [Scenario(f"burst {n:,}", f"burst of {n:,}, generations of 2 s", n, 2.0) for n in options.bursts]
    runs: list[dict[str, Any]] = []
    async with servers_up(options.out / "servers") as stack:
        for scenario in [*bursts, *map(steady, options.rates)]:
            for turn in range(options.repeat):
                for count in options.counts:
                    folder = options.out / f"{scenario.letter.replace('/', '-').replace(' ', '-')}-{count}-{turn + 1}"
                    folder.mkdir(exist_ok=True)
                    runs.append(await run(stack, scenario, count, options.brokers, folder))
                    print(table(runs[-1:]).splitlines()[-1], flush=True)  # noqa: T201 - the report
    return runs


def report(runs: list[dict[str, Any]]) -> str:
    """The table, and the ceilings by each burst. (In a steady load that is below the ceiling fewer requests share a
    commit, and each costs more.)"""
    bursts: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["scenario"]["rate"] is None:
            bursts.setdefault(run["scenario"]["letter"], []).append(run)
    return "\n\n".join([table(runs), *(f"{letter}: {ceilings(own)}" for letter, own in bursts.items())])


def main() -> None:
    """Prints the table and the ceilings."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.replicas",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 3], help="numbers of replicas")
    parser.add_argument("--bursts", nargs="*", type=int, default=[5_000], help="requests sent as fast as possible")
    parser.add_argument("--rates", nargs="*", type=float, default=[200.0], help="steady loads, requests a second")
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=1, help="nodes of RabbitMQ")
    parser.add_argument("-r", "--repeat", type=int, default=1, help="runs of each")
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "bench-replicas")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    configure_logging("json", logging.CRITICAL)
    with contextlib.suppress(ValueError):  # ended by SIGTERM, it still stops its servers
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    runs = uvloop.run(measure(options))
    (options.out / "runs.json").write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
    told = report(runs)
    (options.out / "report.md").write_text(told + "\n", "utf-8")
    print(f"\n{told}\n\n{options.out}")  # noqa: T201


if __name__ == "__main__":
    main()
