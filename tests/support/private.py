"""Servers of one test file alone: to be killed, frozen, alarmed or made read-only."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.local.ports import choose
from deploy.local.postgres import PostgresServer
from deploy.local.rabbit import RabbitPorts, RabbitServer


@contextmanager
def private_rabbit(extra: str = "") -> Iterator[RabbitServer]:
    """A broker that runs, with nothing in it; `extra` are lines of its configuration."""
    home = Path(tempfile.mkdtemp(prefix="drover-chaos-"))
    ports = choose(("amqp", "management", "distribution", "epmd"), {})
    server = RabbitServer(home / "rabbitmq", RabbitPorts(**ports), state=home, conf=extra)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.stop()
        shutil.rmtree(home)


@contextmanager
def private_postgres() -> Iterator[PostgresServer]:
    """A database server that runs, with one empty database."""
    home = Path(tempfile.mkdtemp(prefix="drover-chaos-"))
    folder = Path(tempfile.mkdtemp(prefix="drover-chaos-postgres-"))  # its account may not enter the first one
    server = PostgresServer(folder, choose(("postgres",), {})["postgres"], state=home)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
        shutil.rmtree(home)


@contextmanager
def frozen(pid: int | None) -> Iterator[None]:
    """A process and its children are stopped where they stand, and go on afterwards."""
    assert pid is not None
    _signal(pid, signal.SIGSTOP)  # first: it makes no more children then
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for child in children:
        _signal(child, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in (*children, pid):
            _signal(member, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
