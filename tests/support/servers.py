"""Real Postgres and RabbitMQ for tests: the local stack, with a database and a vhost of its own for each test."""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from service.postgres.database import Database
from service.postgres.migrate import apply_migrations

REPOSITORY = Path(__file__).resolve().parents[2]
STACK = REPOSITORY / "deploy" / "local" / "stack.py"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the stack's servers are."""

    amqp_url: str
    database_url: str
    management_url: str

    @classmethod
    def up(cls) -> Servers:
        """Starts the stack unless it runs (it is idempotent), and reads its addresses."""
        subprocess.run([sys.executable, str(STACK), "up"], check=True, stdout=subprocess.DEVNULL, timeout=300)
        printed = subprocess.run([sys.executable, str(STACK), "env"], check=True, capture_output=True, text=True).stdout
        found = dict(os.environ)
        for line in printed.splitlines():
            name, _, value = shlex.split(line)[1].partition("=")
            found[name] = value
        return cls(found["DROVER_AMQP_URL"], found["DROVER_DATABASE_URL"], found["DROVER_LOCAL_RABBIT_MANAGEMENT_URL"])

    # -- Postgres -------------------------------------------------------------------------------------------------

    async def make_template(self, name: str) -> None:
        """A migrated database to copy from."""
        await self._administer(f"drop database if exists {name}", f"create database {name}")
        database = Database(_with_path(self.database_url, name), size=1)
        await database.open()
        await apply_migrations(database)
        await database.close()

    async def drop_template(self, name: str) -> None:
        """Drops it; its copies stay."""
        await self._administer(f"drop database if exists {name} with (force)")

    async def make_database(self, template: str) -> str:
        """A copy of the template; its URL."""
        name = f"{template}_{uuid4().hex[:12]}"
        await self._administer(f"create database {name} template {template}")
        return _with_path(self.database_url, name)

    async def drop_database(self, url: str) -> None:
        """Drops it, whoever is still connected."""
        await self._administer(f"drop database if exists {urlsplit(url).path[1:]} with (force)")

    async def _administer(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    # -- RabbitMQ -------------------------------------------------------------------------------------------------

    async def make_vhost(self) -> str:
        """An empty vhost; its URL."""
        name = f"test-{uuid4().hex[:12]}"
        await self.manage("PUT", f"/api/vhosts/{name}")
        user = urlsplit(self.management_url).username
        everything = b'{"configure": ".*", "write": ".*", "read": ".*"}'
        await self.manage("PUT", f"/api/permissions/{name}/{user}", everything)
        return _with_path(self.amqp_url, name)

    async def drop_vhost(self, url: str) -> None:
        """Removes it with all that is in it."""
        await self.manage("DELETE", f"/api/vhosts/{urlsplit(url).path[1:]}")

    async def manage(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One call of RabbitMQ's management API."""
        parts = urlsplit(self.management_url)
        request = urllib.request.Request(  # noqa: S310 - our own server on loopback
            urlunsplit((parts.scheme, f"{parts.hostname}:{parts.port}", path, "", "")), data=body, method=method
        )
        token = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        request.add_header("Content-Type", "application/json")

        def call() -> bytes:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer

        return await asyncio.to_thread(call)


def _with_path(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))
