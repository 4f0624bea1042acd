"""Replicas that die at a named point (see `points.py`), from a warm interpreter that forks them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.replica import OWN_VARIABLES
from tests.support.servers import REPOSITORY


class Stable:
    """The process that forks them; one lives at a time."""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.points",
            cwd=REPOSITORY,
            env={name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 60)

    async def start(self, variables: Mapping[str, str], way: Sequence[str], log: Path) -> Replica:
        """A replica that dies at the end of its way."""
        assert self._process.stdin is not None
        order = {"variables": dict(variables), "way": list(way), "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return Replica(int((await self._answer())["pid"]), log, self._answer)

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "The stable has ended."
        answer: dict[str, Any] = json.loads(line)
        return answer


class Replica:
    """One of them."""

    def __init__(self, pid: int, log: Path, answer: Any) -> None:  # noqa: ANN401 - the stable's next line
        self._pid = pid
        self._log = log
        self._answer = answer

    def terminate(self) -> None:
        """SIGTERM: the ordered drain."""
        os.kill(self._pid, signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit status; minus the number of the signal that ended it."""
        return int((await self._answer())["status"])

    def lines(self) -> list[dict[str, Any]]:
        """Its log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def port(self) -> int:
        """Where it serves HTTP."""
        return next(int(line["port"]) for line in self.lines() if line["event"] == "http.listening")

    def died_at(self) -> str | None:
        """The point at which it killed itself."""
        return next((line["point"] for line in reversed(self.lines()) if line["event"] == "died"), None)
