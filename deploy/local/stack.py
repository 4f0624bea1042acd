#!/usr/bin/env python3
"""The local stack: up, down, status, env, wipe. Runs on Python 3.11 alone, before anything is installed."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local import packages, postgres, rabbit
from deploy.local.drover import API_KEY, SandboxServer
from deploy.local.errors import StackError
from deploy.local.ports import accepts, choose, speaks_amqp
from deploy.local.postgres import PostgresServer
from deploy.local.rabbit import RabbitPorts, RabbitServer
from deploy.local.record import Record

REPOSITORY = Path(__file__).resolve().parents[2]
FALLBACK = Path("/var/tmp")  # noqa: S108 - survives a reboot
RABBIT_PORTS = ("amqp", "management", "distribution", "epmd")
OWN_FILES = ("postgres", "rabbitmq", "run", "log", "postgres.password", "state.json", "lock")
AMQP_URL, DATABASE_URL = "DROVER_AMQP_URL", "DROVER_DATABASE_URL"
MANAGEMENT_URL = "DROVER_LOCAL_RABBIT_MANAGEMENT_URL"


class Stack:
    """Postgres, RabbitMQ and, if wanted, the sandbox: everything in one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.record = Record.load(self.home)

    @property
    def postgres(self) -> PostgresServer:
        folder = Path(self.record.postgres_folder or self.home / "postgres")
        return PostgresServer(folder, self.record.ports.get("postgres", 0), state=self.home)

    @property
    def rabbit(self) -> RabbitServer:
        ports = RabbitPorts(**{name: self.record.ports.get(name, 0) for name in RABBIT_PORTS})
        return RabbitServer(self.home / "rabbitmq", ports, state=self.home)

    @property
    def sandbox(self) -> SandboxServer:
        return SandboxServer(REPOSITORY / ".venv", self.record.ports.get("sandbox", 0), state=self.home)

    # What the environment names is used as it is, unless it names this very stack (after `eval "$(stack.py env)"`).

    @property
    def given_amqp_url(self) -> str | None:
        url = os.environ.get(AMQP_URL) or None
        return None if url and self.record.ports and url == self.rabbit.url else url

    @property
    def given_database_url(self) -> str | None:
        url = os.environ.get(DATABASE_URL) or None
        return None if url and self.record.ports and url == self.postgres.url else url

    def up(self, *, with_sandbox: bool = False) -> None:
        """Bring up what is down; return when everything answers."""
        with self._locked():
            self._check_given()
            self._install_missing()
            starts: list[Callable[[], object]] = []
            if self.given_database_url is None:
                starts.append(self._prepared_postgres().start)
            if self.given_amqp_url is None:
                starts.append(self._prepared_rabbit().start)
            if with_sandbox:
                self._choose("sandbox", alive=self.sandbox.alive())
                starts.append(self.sandbox.start)
            self.record.save()
            _together(starts)

    def down(self) -> None:
        """Stop what runs, cleanly and at the same time."""
        if not self.home.exists():
            return
        with self._locked():
            _together([self.sandbox.stop, self.postgres.stop, self.rabbit.stop])

    def wipe(self) -> None:
        """Stop, and remove everything this program has made, in the home folder and beside it."""
        self.down()
        if self.record.postgres_folder:
            shutil.rmtree(self.record.postgres_folder, ignore_errors=True)
        for name in OWN_FILES:
            path = self.home / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def status(self) -> dict[str, str]:
        """One word for each server, and where it is."""
        states = {}
        for name, given in (("postgres", self.given_database_url), ("rabbitmq", self.given_amqp_url)):
            server = self.postgres if name == "postgres" else self.rabbit
            if given:
                states[name] = f"{'up' if _answers(given) else 'down'} (given by the environment)"
            elif not server.alive():
                states[name] = "down"
            else:
                states[name] = (
                    f"{'up' if server.answers() else 'not answering'} (pid {server.pid}, {_place(server.url)})"
                )
        if self.sandbox.alive():
            states["sandbox"] = f"up (pid {self.sandbox.pid}, {_place(self.sandbox.url)})"
        return states

    def environment(self, *, with_sandbox: bool = False) -> dict[str, str]:
        """The variables that point the service at this stack."""
        if not self.is_up():
            raise StackError("the local stack is not up: run `make up`")
        variables = {
            AMQP_URL: self.given_amqp_url or self.rabbit.url,
            DATABASE_URL: self.given_database_url or self.postgres.url,
        }
        if self.given_amqp_url is None:
            variables[MANAGEMENT_URL] = self.rabbit.management_url
        if with_sandbox and self.sandbox.alive() and "OXEN_API_KEY" not in os.environ:
            variables |= {"OXEN_BASE_URL": self.sandbox.url, "OXEN_API_KEY": API_KEY}
        return variables

    def is_up(self) -> bool:
        """Whether both servers run, or are given."""
        return bool(self.given_database_url or self.postgres.alive()) and bool(
            self.given_amqp_url or self.rabbit.alive()
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time for one home; what another has recorded meanwhile is read anew."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            lock = (self.home / "lock").open("a")
        except OSError as error:
            raise StackError(f"cannot write in {self.home} ({error.strerror}): choose another with --home") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.record = Record.load(self.home)
            yield

    def _check_given(self) -> None:
        for variable, url in ((AMQP_URL, self.given_amqp_url), (DATABASE_URL, self.given_database_url)):
            if url and not _answers(url):
                raise StackError(
                    f"{variable} names {_place(url)}, which does not answer: start that server, or unset {variable} "
                    "to have a private one"
                )

    def _install_missing(self) -> None:
        missing = []
        if self.given_database_url is None and not self.postgres.alive() and postgres.find_binaries() is None:
            missing.append("postgresql")
        if self.given_amqp_url is None and not self.rabbit.alive() and rabbit.find_binaries() is None:
            missing.append("rabbitmq-server")
        if missing and packages.may_install():
            packages.install(missing)

    def _prepared_postgres(self) -> PostgresServer:
        account = postgres.server_account()
        if account and not self.record.postgres_folder and not _can_enter(self.home, account):
            # A new one: what lies about there may be a trap, or of a home that has been deleted, with its password.
            folder = tempfile.mkdtemp(prefix="drover-", dir=FALLBACK)
            self.record.postgres_folder = folder
            print(f"Postgres cannot run as root, and its account cannot enter {self.home}: its data are in {folder}")
        self._choose("postgres", alive=self.postgres.alive())
        return self.postgres

    def _prepared_rabbit(self) -> RabbitServer:
        alive = self.rabbit.alive()
        if not alive:
            self.rabbit.stop()  # the epmd of a node that has crashed holds its port
        self._choose(*RABBIT_PORTS, alive=alive)
        return self.rabbit

    def _choose(self, *names: str, alive: bool) -> None:
        """Settle the ports of a server: the recorded ones, unless it is down and somebody else has taken them."""
        if alive:
            return
        for name, port in choose(names, self.record.ports).items():
            before = self.record.ports.get(name)
            if before not in (None, port):
                print(f"port {before} ({name}) is taken by another program: using {port}")
            self.record.ports[name] = port


def _together(calls: list[Callable[[], object]]) -> None:
    """Run them at the same time, all to their end; then raise the first failure."""
    if not calls:
        return
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(calls)) as pool:
        tasks = [pool.submit(call) for call in calls]
    failures = [failure for task in tasks if (failure := task.exception()) is not None]
    if failures:
        raise failures[0]


def _can_enter(folder: Path, account: tuple[int, int]) -> bool:
    argv = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(folder)]
    return (
        subprocess.run(argv, check=False, user=account[0], group=account[1], extra_groups=[], cwd="/").returncode == 0
    )


def _place(url: str) -> str:
    """Host and port of a URL, without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or _default_port(parts.scheme)}"


def _default_port(scheme: str) -> int:
    return {"amqp": 5672, "amqps": 5671}.get(scheme, 5432)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or _default_port(parts.scheme)
    return speaks_amqp(host, port) if parts.scheme == "amqp" else accepts(host, port)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stack.py", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "env", "wipe"])
    parser.add_argument(
        "--home", type=Path, default=REPOSITORY / ".local", help="folder of the servers (default: %(default)s)"
    )
    parser.add_argument("--with-sandbox", action="store_true", help="up, env: the stand-in hub as well (needs .venv)")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    stack = Stack(options.home)
    if options.command == "up":
        began = time.monotonic()
        stack.up(with_sandbox=options.with_sandbox)
        for name, state in stack.status().items():
            print(f"{name}: {state}")
        print(f"the local stack is up ({time.monotonic() - began:.1f} s)")
    elif options.command == "down":
        stack.down()
        print("the local stack is down; its data are kept")
    elif options.command == "wipe":
        stack.wipe()
        print("the local stack is down and its data are removed")
    elif options.command == "env":
        for name, value in stack.environment(with_sandbox=options.with_sandbox).items():
            print(f"export {name}={shlex.quote(value)}")
    else:
        states = stack.status()
        for name, state in states.items():
            print(f"{name}: {state}")
        return 0 if all(state.startswith("up") for state in states.values()) else 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    try:
        return _run(_parse(arguments))
    except (StackError, OSError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
