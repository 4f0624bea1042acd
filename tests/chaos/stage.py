"""The world of a run: a private Postgres and RabbitMQ that may be killed, before a hub."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.stack import Stack
from tests.chaos.hub import HubProcess
from tests.support.replica import environment
from tests.support.servers import Servers

GIVEN = ("DROVER_AMQP_URL", "DROVER_DATABASE_URL", "DROVER_LOCAL_RABBIT_MANAGEMENT_URL")
SETTLED_S = 2.0  # a quorum queue younger than a second comes back empty from a kill of the broker
GONE_S = 20.0

# Short, so that a run has many of everything; the proportions are those of the defaults.
QUICK = {
    "DROVER_DOUBT_GRACE_S": "2",
    "DROVER_RECONCILE_INTERVAL_S": "4",
    "DROVER_SUBMIT_TIMEOUT_S": "2",
    "DROVER_STREAM_IDLE_TIMEOUT_S": "16",
}


class Stage:
    """Servers, a database, a vhost and a hub of one run."""

    def __init__(self, stack: Stack, hub: HubProcess) -> None:
        self._stack = stack
        self.hub = hub
        self.servers = Servers(stack.rabbit.url, stack.postgres.url, stack.rabbit.management_url)
        self.database_url = ""
        self.amqp_url = ""

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a replica."""
        return environment(self.amqp_url, self.database_url, self.hub.url, **QUICK)

    async def kill_broker(self, down_s: float) -> None:
        """SIGKILL to the node, a pause, and a start; returns when it answers."""
        await asyncio.to_thread(self._stack.rabbit.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self._stack.rabbit.start)

    async def restart_database(self, down_s: float) -> None:
        """An immediate shutdown (no checkpoint, every client cut), a pause, and a start with recovery."""
        postgres = self._stack.postgres
        pid = postgres.pid
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
        give_up = time.monotonic() + GONE_S
        while postgres.alive():
            if time.monotonic() > give_up:
                raise TimeoutError(f"Postgres (pid {pid}) does not end on SIGQUIT")
            await asyncio.sleep(0.02)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(postgres.start)


@asynccontextmanager
async def servers_up(home: Path) -> AsyncIterator[Stack]:
    """Servers of their own in `home`, removed afterwards with all they hold; what the environment names is not used."""
    given = {name: os.environ.pop(name) for name in GIVEN if name in os.environ}
    home.mkdir(parents=True, exist_ok=True)
    try:
        await asyncio.to_thread(Stack(home).wipe)  # what a run that was killed has left
        stack = Stack(home)
        await asyncio.to_thread(stack.up)
        yield stack
    finally:
        await asyncio.to_thread(Stack(home).wipe)
        shutil.rmtree(home, ignore_errors=True)
        os.environ.update(given)


@asynccontextmanager
async def staged(stack: Stack, hub: HubProcess) -> AsyncIterator[Stage]:
    """An empty database and an empty vhost, before a hub that runs."""
    stage = Stage(stack, hub)
    template = f"drover_chaos_{os.getpid()}"
    await stage.servers.make_template(template)
    stage.database_url = await stage.servers.make_database(template)
    stage.amqp_url = await stage.servers.make_vhost()
    try:
        yield stage
    finally:
        await stage.servers.drop_database(stage.database_url)
        await stage.servers.drop_template(template)
        await stage.servers.drop_vhost(stage.amqp_url)
