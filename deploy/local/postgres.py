"""A private Postgres: own data folder, own port, loopback only, fsync on."""

from __future__ import annotations

import functools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK, accepts
from deploy.local.process import Daemon, start_time

OLDEST = 14
USER = "drover"
DATABASE = "drover"
DEBIAN_BINARIES = Path("/usr/lib/postgresql")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")

# Everything else stays as initdb wrote it, above all fsync, synchronous_commit and full_page_writes: on.
CONF = """
listen_addresses = '{host}'
unix_socket_directories = ''  # a deep folder would exceed the length limit of a socket's path
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u@%d '
"""


def major_version(binaries: Path) -> int | None:
    """The major version of the server in this folder; None when it is not a complete one."""
    if not all((binaries / name).is_file() for name in ("postgres", "initdb", "psql")):
        return None
    said = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    found = _VERSION.search(said.stdout)
    return int(found.group(1)) if found else None


def candidates() -> list[Path]:
    """Folders that may hold the server: what pg_config names, then Debian's, newest first."""
    folders = []
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(said.stdout.strip()))
    debian = [path for path in DEBIAN_BINARIES.glob("*/bin") if path.parent.name.isdigit()]
    folders += sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    return list(dict.fromkeys(folders))


def find_binaries(made_by: int | None = None) -> Path | None:
    """The server's programs; of that very version when a data folder made by it is there."""
    found = [(folder, version) for folder in candidates() if (version := major_version(folder)) is not None]
    for folder, version in found:
        if version >= OLDEST and made_by in (None, version):
            return folder
    if found and made_by is not None:
        raise StackError(
            f"the data folder was made by Postgres {made_by}, and only {', '.join(str(v) for _, v in found)} is here: "
            f"install postgresql-{made_by}, or drop the local data with `deploy/local/stack.py wipe`"
        )
    return None


def server_account() -> tuple[int, int] | None:
    """Whom to run as: Postgres refuses root. None means: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StackError("Postgres cannot run as root and there is no account `postgres` or `nobody`: create one of them")


class PostgresServer:
    """One server in `folder`; log and pid file are in `state`, since the folder may belong to another account."""

    def __init__(self, folder: Path, port: int, *, state: Path) -> None:
        self.folder = folder
        self.port = port
        self.data = folder / "data"
        self._state = state
        self._account = server_account()
        self._daemon = Daemon("Postgres", state / "run" / "postgres.pid", state / "log" / "postgres.log")

    @property
    def password(self) -> str:
        """Random, kept beside the pid file: the port is open to every user of the machine."""
        kept = self._state / "postgres.password"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.touch(mode=0o600)
            kept.write_text(secrets.token_hex(12))
        return kept.read_text().strip()

    @property
    def url(self) -> str:
        return self.database_url(DATABASE)

    def database_url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        return self._daemon.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._daemon.alive()

    def answers(self, database: str = DATABASE) -> bool:
        """Whether it answers a query."""
        return self._psql("select 1", database).returncode == 0

    def start(self) -> None:
        """Start it if it is down, and return when it answers queries and has the database."""
        if not self.alive():
            binaries = self._binaries
            if not (self.data / "PG_VERSION").exists():
                self._create(binaries)
            self._drop_stale_lock()
            argv = [str(binaries / "postgres"), "-D", str(self.data), "-p", str(self.port)]
            self._daemon.start(argv, env=self._env(), cwd=self.folder, account=self._account)
        elif self.answers():
            return
        self._daemon.wait_ready(
            lambda: accepts(LOOPBACK, self.port) and self.answers("postgres"), timeout=START_TIMEOUT_S
        )
        self.create_database(DATABASE)

    def create_database(self, name: str) -> None:
        """Create it unless it is there."""
        known = self._psql(f"select 1 from pg_database where datname = '{name}'", "postgres")  # noqa: S608 - our names
        if known.stdout.strip() == "1":
            return
        made = self._psql(f'create database "{name}"', "postgres")
        if made.returncode != 0:
            raise StackError(f"Postgres could not create the database {name}: {made.stderr.strip()}")

    def drop_database(self, name: str) -> None:
        self._psql(f'drop database if exists "{name}" with (force)', "postgres")

    def stop(self) -> bool:
        """A clean, fast shutdown: clients are disconnected, everything is on disk."""
        return self._daemon.stop(first=signal.SIGINT, timeout=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL, as a crash would: the next start recovers from the log."""
        self._daemon.kill()

    @functools.cached_property
    def _binaries(self) -> Path:
        made_by = None
        if (self.data / "PG_VERSION").exists():
            made_by = int((self.data / "PG_VERSION").read_text())
        binaries = find_binaries(made_by)
        if binaries is None:
            raise StackError(
                f"Postgres {OLDEST} or newer is not installed: install it (Debian, Ubuntu: "
                "`sudo apt-get install postgresql`), or name a running server in DROVER_DATABASE_URL"
            )
        return binaries

    def _drop_stale_lock(self) -> None:
        """Postgres takes a zombie for a running server, and not every PID 1 reaps those that crashed."""
        lock = self.data / "postmaster.pid"
        if lock.exists() and not start_time(int(lock.read_text().split()[0])):
            lock.unlink()

    def _create(self, binaries: Path) -> None:
        """Make the data folder, whole or not at all: an interrupted initdb must not pass for a database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        secret = self.folder / "password.new"
        secret.touch(mode=0o600)
        secret.write_text(self.password + "\n")
        if self._account:
            os.chown(self.folder, *self._account)
            os.chown(secret, *self._account)
        argv: list[str | Path] = [
            binaries / "initdb",
            "-D",
            fresh,
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
        ]
        made = self._run([*argv, "-E", "UTF8", "--no-locale"])
        secret.unlink()
        if made.returncode != 0:
            raise StackError(f"initdb could not make {self.data}: {made.stderr.strip() or made.stdout.strip()}")
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write(CONF.format(host=LOOPBACK))
        fresh.rename(self.data)

    def _psql(self, query: str, database: str) -> subprocess.CompletedProcess[str]:
        where = ["-h", LOOPBACK, "-p", str(self.port), "-U", USER, "-d", database]
        return subprocess.run(
            [self._binaries / "psql", "-XqtAw", *where, "-c", query],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**self._env(), "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "5"},
        )

    def _run(self, argv: list[str | Path]) -> subprocess.CompletedProcess[str]:
        uid, gid = self._account or (None, None)
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._env(),
            cwd=self.folder,
            user=uid,
            group=gid,
            extra_groups=[] if self._account else None,
        )

    @staticmethod
    def _env() -> dict[str, str]:
        """The person's own PG* settings are for the person's own servers."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
