"""A RabbitMQ cluster of three nodes on loopback, and what stands before it in production: a balancer of connections."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK, choose
from deploy.local.rabbit import PASSWORD, USER, RabbitPorts, RabbitServer

SIZE = 3
FORMED_S = 30.0
CONNECT_S = 2.0
KINDS = ("amqp", "management", "distribution")
# What RabbitMQ advises for three nodes: one that does not see a majority closes its connections and waits.
CONF = """\
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
"""


class Cluster:
    """Its nodes. All that is asked of it is asked of one that runs."""

    def __init__(self, nodes: Sequence[RabbitServer]) -> None:
        self.nodes = tuple(nodes)

    @property
    def running(self) -> list[RabbitServer]:
        """Nodes whose process runs."""
        return [node for node in self.nodes if node.alive()]

    def start(self) -> None:
        """Starts those that are down, all at once, and returns when each sees all."""
        self.nodes[0].start_epmd()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(RabbitServer.start, self.nodes))
        give_up = time.monotonic() + FORMED_S
        while (seen := [self.seen_by(node) for node in self.nodes]) != [set(self.names)] * len(self.nodes):
            if time.monotonic() > give_up:
                raise TimeoutError(f"The nodes are not one cluster after {FORMED_S:g} s: they see {seen}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Kills every node; the epmd goes with the last."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.stop()

    @property
    def names(self) -> list[str]:
        """All nodes, running or not."""
        return [node.name for node in self.nodes]

    def seen_by(self, node: RabbitServer) -> set[str]:
        """The running members that a node knows of."""
        return {str(entry["name"]) for entry in _list(node, "/api/nodes") if entry["running"]}

    def create_vhost(self, name: str) -> None:
        """Creates it. Nodes that see each other again may still be putting their tables in step, and then take nothing:
        so again, until they do."""
        give_up = time.monotonic() + FORMED_S
        while True:
            try:
                return self.nodes[0].create_vhost(name)
            except StackError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(0.5)

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """What the cluster says of a quorum queue: `leader`, `members`, `online`; empty when nobody answers."""
        for node in self.running:
            found = node.management("GET", f"/api/queues/{quote(vhost, safe='')}/{name}")
            if isinstance(found, dict) and "members" in found:
                return found
        return {}


def _list(node: RabbitServer, path: str) -> list[dict[str, Any]]:
    found = node.management("GET", path)
    return found if isinstance(found, list) else []


@contextmanager
def private_cluster() -> Iterator[Cluster]:
    """Three nodes that run and see each other, with nothing in them."""
    home = Path(tempfile.mkdtemp(prefix="drover-cluster-"))
    ports = choose(("epmd", *(f"{kind}{number}" for number in range(SIZE) for kind in KINDS)), {})
    names = [f"drover{number}@localhost" for number in range(SIZE)]
    conf = CONF + "".join(
        f"cluster_formation.classic_config.nodes.{number + 1} = {name}\n" for number, name in enumerate(names)
    )
    cookie = secrets.token_hex(20)
    cluster = Cluster(
        [
            RabbitServer(
                home / name.partition("@")[0],
                RabbitPorts(epmd=ports["epmd"], **{kind: ports[f"{kind}{number}"] for kind in KINDS}),
                state=home,
                name=name,
                cookie=cookie,
                conf=conf,
            )
            for number, name in enumerate(names)
        ]
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(home)


class Balancer:
    """Gives each new connection to a node that accepts, in turns; as HAProxy, or a Service of Kubernetes, would.

    `only` says to which nodes, by number; the others are asked when none of these accepts.
    """

    def __init__(self, cluster: Cluster, *, only: Sequence[int] = ()) -> None:
        self._ports = [node.ports.amqp for node in cluster.nodes]
        self._first = list(only) or list(range(len(self._ports)))
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, vhost: str) -> str:
        """Where clients connect."""
        return f"amqp://{USER}:{PASSWORD}@{LOOPBACK}:{self._port}/{quote(vhost, safe='')}"

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        node = await self._node()
        try:
            if node is not None:
                await asyncio.gather(_pump(reader, node[1]), _pump(node[0], writer))
        finally:
            for side in (writer, *([node[1]] if node else [])):
                side.transport.abort()

    async def _node(self) -> tuple[StreamReader, StreamWriter] | None:
        for port in self._order():
            with suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), CONNECT_S)
        return None

    def _order(self) -> list[int]:
        self._turn += 1
        turned = [self._first[(self._turn + number) % len(self._first)] for number in range(len(self._first))]
        rest = [number for number in range(len(self._ports)) if number not in turned]
        return [self._ports[number] for number in (*turned, *rest)]


async def _pump(source: StreamReader, sink: StreamWriter) -> None:
    """Until one side closes or resets; the other hears of it."""
    try:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
    finally:
        sink.close()
