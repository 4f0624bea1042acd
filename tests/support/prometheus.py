"""A real Prometheus of one test or one run: scrapes what it is told, and answers queries."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import yaml

from deploy.local.ports import LOOPBACK, choose

STARTS_S = 30.0
LOOK_S = 0.1


class Prometheus:
    """The machine's own `prometheus`, in a folder of its own. An async context manager.

    `targets` are host:port, all of the job `drover`.
    """

    def __init__(self, targets: Sequence[str], *, interval_s: float = 1.0, rules: Sequence[Path] = ()) -> None:
        every = f"{round(1000 * interval_s)}ms"
        self._configuration = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(file) for file in rules],
            "scrape_configs": [{"job_name": "drover", "static_configs": [{"targets": list(targets)}]}],
        }
        self.url = f"http://{LOOPBACK}:{choose(('prometheus',), {})['prometheus']}"

    async def __aenter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="drover-prometheus-"))
        (self._home / "prometheus.yaml").write_text(yaml.safe_dump(self._configuration))
        with (self._home / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={self._home / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._home / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                stdout=log,
                stderr=log,
            )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        try:
            await self._ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        if self._process.returncode is None:
            self._process.kill()  # what it has stored goes with it
        await self._process.wait()
        shutil.rmtree(self._home)

    async def _ready(self) -> None:
        async with asyncio.timeout(STARTS_S):
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"Prometheus ended: {(self._home / 'log').read_text()[-2000:]}")
                try:
                    async with self._session.get(f"{self.url}/-/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(LOOK_S)

    async def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The vector as of now, or of a moment (Unix seconds). ValueError says what is wrong with the expression."""
        moment = {} if at is None else {"time": str(at)}
        result: list[dict[str, Any]] = (await self._ask("query", query=expression, **moment))["result"]
        return result

    async def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The series between two moments (Unix seconds)."""
        data = await self._ask("query_range", query=expression, start=str(start), end=str(end), step=str(step_s))
        result: list[dict[str, Any]] = data["result"]
        return result

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule that it evaluates, with its health."""
        return [rule for group in (await self._ask("rules"))["groups"] for rule in group["rules"]]

    async def until(self, expression: str, timeout_s: float = 20.0) -> None:
        """Waits until an expression has a result."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.query(expression):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"It did not come true: {expression}") from None

    async def _ask(self, kind: str, **parameters: str) -> dict[str, Any]:
        async with self._session.get(f"{self.url}/api/v1/{kind}?{urlencode(parameters)}") as response:
            answer = json.loads(await response.read())
        if answer["status"] != "success":
            raise ValueError(f"{parameters.get('query', kind)}: {answer['error']}")
        data: dict[str, Any] = answer["data"]
        return data
