"""A node of a three-node RabbitMQ dies under load: the replicas go on, nothing is lost, nothing is paid for twice.

Clients connect through a balancer, as in production. The report of each test (`-s`) says for how long nothing flowed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.local.rabbit import RabbitServer
from service.rabbit.connection import Link
from service.rabbit.topology import OWN_QUEUES, REQUESTS, declare
from service.sandbox import Faults
from tests.chaos import gathering
from tests.chaos.checker import check
from tests.chaos.clients import INBOX, Producer, Recorder
from tests.chaos.evidence import TERMINAL, Evidence
from tests.chaos.hub import HubProcess, bought, streams
from tests.chaos.stage import QUICK
from tests.chaos.traffic import Asked, traffic
from tests.chaos.troupe import Troupe
from tests.support.cluster import Balancer, Cluster, private_cluster
from tests.support.replica import environment

pytestmark = [pytest.mark.asyncio, pytest.mark.chaos_long, pytest.mark.timeout(300)]
REPLICAS = 2
REQUESTS_SENT, LOAD_S = 900, 30.0
KILLED_AT_S, DOWN_S = 8.0, 8.0
PATIENCE_S = 90.0
RESUMED_S = 20.0  # on an idle machine it is some two seconds
SETTLED_S = 2.0  # a quorum queue younger than a second is not on every disk yet


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of this file alone."""
    with private_cluster() as nodes:
        yield nodes


@pytest_asyncio.fixture
async def vhost(cluster: Cluster) -> str:
    """A fresh one, with the topology declared through the first node: all its queues are led from there."""
    cluster.start()  # a test that failed may have left a node dead
    name = f"test-{uuid4().hex[:12]}"
    first = cluster.nodes[0]
    cluster.create_vhost(name)
    link = await Link.open(first.vhost_url(name), "test")
    await declare(await link.channel(confirms=False))
    await link.close()
    assert all(len(cluster.queue(name, queue)["members"]) == 3 for queue in OWN_QUEUES)
    assert cluster.queue(name, REQUESTS)["leader"] == first.name
    return name


@pytest_asyncio.fixture
async def slow_hub() -> AsyncIterator[HubProcess]:
    """A hub whose generations take a second or so."""
    async with HubProcess(seed=1, delay_s=1.0, faults=Faults()) as hub:
        yield hub


@dataclass(frozen=True, slots=True)
class Played:
    """A run under load: what was seen, and when the nodes went and came."""

    evidence: Evidence
    killed_at: float
    back_at: float
    unknown: int

    def told(self) -> str:
        """For how long nothing flowed."""
        ends = sorted(event.at for event in self.evidence.heard if event.name in TERMINAL)
        around = [moment for moment in ends if moment > self.killed_at - 1]
        silence = max(((later - earlier) for earlier, later in pairwise(around)), default=0.0)
        return (
            f"{len(self.evidence.confirmed)} requests, {len(self.evidence.heard)} deliveries of events "
            f"({len(self.evidence.heard) - len({event.event_id for event in self.evidence.heard})} of them repeats), "
            f"{self.unknown} publishes without an answer; the longest silence between two ends {silence:.1f} s; "
            f"a request that was stored after the kill had ended {self.resumed_s:.1f} s after it; "
            f"the node was back after {self.back_at - self.killed_at:.1f} s"
        )

    @property
    def resumed_s(self) -> float:
        """From the kill to the end of a request that was accepted after it."""
        later = {e.request_id for e in self.evidence.heard if e.name == "accepted" and e.at > self.killed_at + 0.5}
        ends = (e.at for e in self.evidence.heard if e.name in TERMINAL and e.request_id in later)
        return min(ends, default=float("inf")) - self.killed_at


async def play(
    cluster: Cluster,
    balancer: Balancer,
    vhost: str,
    database_url: str,
    hub: HubProcess,
    strike: Callable[[Troupe], Awaitable[tuple[float, float]]],
) -> Played:
    """Two replicas and a steady load; `strike` does the harm, and gives the moments of the kill and of the return."""
    url = balancer.url(vhost)
    troupe = Troupe(environment(url, database_url, hub.url, **QUICK), REPLICAS)
    asked = traffic(7, REQUESTS_SENT, LOAD_S)
    try:
        await troupe.start()
        async with Recorder(url) as recorder, Producer(url) as producer:
            assert len(cluster.queue(vhost, INBOX)["members"]) == 3
            await asyncio.sleep(SETTLED_S)
            async with asyncio.TaskGroup() as group:
                group.create_task(producer.play(asked))
                await asyncio.sleep(KILLED_AT_S)
                killed_at, back_at = await strike(troupe)
            await _until_over(database_url, recorder, asked)
            assert all(replica.running for replica in troupe.all)
            assert len(troupe.all) == REPLICAS
            await troupe.drain()
            evidence = await _evidence(cluster, vhost, database_url, hub, troupe, recorder, producer, asked)
    finally:
        await troupe.close()
    return Played(evidence, killed_at, back_at, producer.unknown)


async def _until_over(database_url: str, recorder: Recorder, asked: Sequence[Asked]) -> None:
    ids = {request.request_id for request in asked}
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        ended = {event.request_id for event in recorder.heard if event.name in TERMINAL}
        if ids <= ended and await gathering.unfinished(database_url) == 0:
            return
        await asyncio.sleep(0.5)  # the rest is told by the checker


async def _evidence(
    cluster: Cluster,
    vhost: str,
    database_url: str,
    hub: HubProcess,
    troupe: Troupe,
    recorder: Recorder,
    producer: Producer,
    asked: Sequence[Asked],
) -> Evidence:
    rows, ledger = await gathering.stored(database_url), await hub.ledger()
    await troupe.close()
    return Evidence(
        asked=asked,
        confirmed=frozenset(producer.confirmed),
        heard=tuple(recorder.heard),
        bought=bought(ledger),
        requests=rows.requests,
        outputs=rows.outputs,
        events=rows.events,
        streams=streams(ledger),
        log=tuple(line for replica in troupe.all for line in replica.log()),
        stderr=tuple(f"{replica.name}: {line}" for replica in troupe.all for line in replica.process.errors),
        exit_codes=troupe.exit_codes,
        quarantined=int(cluster.queue(vhost, "generation.dead").get("messages", 0)),
        ended_at=time.time(),
    )


async def killed(nodes: Sequence[RabbitServer], down_s: float = DOWN_S) -> tuple[float, float]:
    """SIGKILL to them at once, a pause, and a start of the first; the moments of the kill and of its answer."""
    killed_at = time.time()
    await asyncio.gather(*(asyncio.to_thread(node.kill) for node in nodes))
    await asyncio.sleep(down_s)
    await asyncio.to_thread(nodes[0].start)
    return killed_at, time.time()


def judge(played: Played, since: float | None = None) -> None:
    """Nothing lost, nothing repeated but deliveries, nothing paid for twice, and soon after the kill (or `since`) what
    is sent comes to its end."""
    verdict = check(played.evidence)
    print(f"\n{played.told()}")  # noqa: T201 - figures for whoever runs it by itself
    # A queue whose node goes refuses what it had not yet written; it is tried again, and here it has come.
    findings = [finding for finding in verdict.findings if finding.subject != "event.not_published"]
    assert not findings, "\n".join(map(str, findings))
    assert not verdict.excused, verdict.excused
    assert played.killed_at + played.resumed_s - (since or played.killed_at) < RESUMED_S, played.told()


async def test_the_node_that_leads_the_queues_is_killed_while_all_connections_are_on_the_others(
    cluster: Cluster, vhost: str, database_url: str, slow_hub: HubProcess
) -> None:
    leader, *_ = cluster.nodes

    async def strike(_: Troupe) -> tuple[float, float]:
        moments = await killed([leader])
        assert cluster.queue(vhost, REQUESTS)["leader"] != leader.name
        return moments

    async with Balancer(cluster, only=[1, 2]) as balancer:
        played = await play(cluster, balancer, vhost, database_url, slow_hub, strike)
    judge(played)
    lost = {line.event for line in played.evidence.log if line.event in ("consumer.lost", "bus.lost")}
    assert not lost, lost  # nobody had to connect anew


async def test_the_node_that_all_connections_are_on_is_killed_while_another_leads_the_queues(
    cluster: Cluster, vhost: str, database_url: str, slow_hub: HubProcess
) -> None:
    async with Balancer(cluster, only=[1]) as balancer:
        played = await play(cluster, balancer, vhost, database_url, slow_hub, lambda _: killed([cluster.nodes[1]]))
    judge(played)
    assert {"consumer.lost", "bus.lost"} <= {line.event for line in played.evidence.log}
    assert cluster.queue(vhost, REQUESTS)["leader"] == cluster.nodes[0].name


@pytest.mark.parametrize("handling", ["pause_minority", "ignore"])
async def test_with_two_of_three_nodes_dead_the_replicas_wait_and_with_one_back_everything_comes(
    cluster: Cluster, vhost: str, database_url: str, slow_hub: HubProcess, handling: str
) -> None:
    told = f"application:set_env(rabbit, cluster_partition_handling, {handling})."
    await asyncio.gather(*(asyncio.to_thread(node.ctl, "eval", told) for node in cluster.nodes))

    async def strike(troupe: Troupe) -> tuple[float, float]:
        async with asyncio.TaskGroup() as group:
            striking = group.create_task(killed(cluster.nodes[:2]))
            await asyncio.sleep(DOWN_S - 2)
            for replica in troupe.all:
                assert replica.running
        return striking.result()

    async with Balancer(cluster) as balancer:
        played = await play(cluster, balancer, vhost, database_url, slow_hub, strike)
    judge(played, since=played.back_at)
