"""drover under test: in this process (quick, inspectable) or as a process of its own (to be killed)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from service.app import App, build
from service.rabbit.topology import CANCELS, REQUESTS
from service.settings import load_settings

KEY = "sandbox-key"
# Not inherited. Of coverage: these are killed, or loaded; what they run is traced where it runs in the tests' process.
OWN_VARIABLES = ("DROVER_", "OXEN_", "OTEL_", "COVERAGE_")
STARTS_S = 60.0  # on a busy machine; how long a start takes is nobody's promise


def environment(amqp_url: str, database_url: str, hub_url: str, **more: str) -> dict[str, str]:
    """The variables of one replica."""
    return {
        "OXEN_API_KEY": KEY,
        "OXEN_BASE_URL": hub_url,
        "DROVER_AMQP_URL": amqp_url,
        "DROVER_DATABASE_URL": database_url,
        "DROVER_HTTP_PORT": "0",
        "DROVER_LOG_FORMAT": "json",
        **more,
    }


@asynccontextmanager
async def running(variables: Mapping[str, str], **overrides: Any) -> AsyncIterator[App]:
    """A replica in this process: ready when entered, drained when left."""
    app = build(load_settings(variables), **overrides)
    await app.start()
    try:
        await app.wait_ready()
        yield app
    finally:
        await app.stop()


class Process:
    """`drover serve` as a process; its log is read as it comes. `tree`: a folder with another `service`."""

    module = "service"

    def __init__(self, variables: Mapping[str, str], *command: str, tree: Path | None = None) -> None:
        self._variables = variables
        self._tree = tree
        self._command = command or ("serve",)
        self.lines: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._logged = asyncio.Condition()

    async def __aenter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            *self._command,
            env={**inherited, **self._variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 22,
            cwd=self._tree,
        )
        self._reading = [asyncio.create_task(self._read_log()), asyncio.create_task(self._read_errors())]
        self.errors: list[str] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._reading)

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.raw.append(line)
            with contextlib.suppress(json.JSONDecodeError):
                async with self._logged:
                    self.lines.append(json.loads(line))
                    self._logged.notify_all()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(line.decode())

    async def logged(self, event: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Waits for a line of the log; the first one of that name."""
        return await self.logged_where(lambda line: line.get("event") == event, timeout_s)

    async def logged_where(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 20.0) -> dict[str, Any]:
        """Waits for a line of the log; the first one that is wanted."""
        async with self._logged:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._logged.wait_for(lambda: any(map(wanted, self.lines)))
            except TimeoutError:
                raise TimeoutError(f"It was not logged: {self.lines[-10:]} {self.errors[-10:]}") from None
        return next(filter(wanted, self.lines))

    async def ready(self) -> int:
        """Waits until it consumes and publishes; its HTTP port."""
        for queue in (REQUESTS, CANCELS):
            await self.logged_where(partial(_consumes, queue), STARTS_S)
        await self.logged_where(
            lambda line: line.get("event") == "bus.connected" and line["purpose"] == "publisher", STARTS_S
        )
        return int((await self.logged("http.listening"))["port"])

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: the ordered drain."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, timeout_s: float = 40.0) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), timeout_s)


def _consumes(queue: str, line: Mapping[str, Any]) -> bool:
    return line.get("event") == "consumer.started" and line["queue"] == queue


async def get(url: str) -> tuple[int, bytes]:
    """Status and body of a GET, whatever the status."""

    def call() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(call)
