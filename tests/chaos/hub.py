"""The stand-in hub as a process of its own, so that nothing that the campaign does makes it slow."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any, Self

import aiohttp

from service.sandbox import Faults
from service.sandbox.faults import FAULTS
from tests.chaos.evidence import Bought, StreamSpan
from tests.support.replica import KEY, OWN_VARIABLES

START_S = 30.0
STOP_S = 10.0


class HubProcess:
    """`drover sandbox`, steered over HTTP. An async context manager."""

    def __init__(self, *, seed: int, delay_s: float, faults: Faults, jitter_s: float | None = None) -> None:
        jitter_s = delay_s / 2 if jitter_s is None else jitter_s
        options = {"--port": 0, "--api-key": KEY, "--delay": delay_s, "--jitter": jitter_s, "--seed": seed}
        self._arguments = [str(word) for option in options.items() for word in option]
        self._faults = faults
        self.url = ""

    async def __aenter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "sandbox", "--no-render", *self._arguments),
            env=inherited,
            stdout=asyncio.subprocess.PIPE,
        )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        try:
            self.url = await self._announced()
            await self.misbehave(self._faults)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def misbehave(self, faults: Faults) -> None:
        """From now on with these faults and no others."""
        await self._call("PUT", "faults", FAULTS.dump_json(faults))

    async def cut_streams(self) -> int:
        """Cuts every open stream; their number."""
        return int((await self._call("POST", "streams/cut"))["cut"])

    async def ledger(self) -> dict[str, Any]:
        """Everything that has happened there."""
        return await self._call("GET", "ledger")

    async def _announced(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            while line := await self._process.stdout.readline():
                if line.startswith(b"sandbox hub: "):
                    return line.decode().removeprefix("sandbox hub: ").strip()
        raise RuntimeError("The sandbox ended before it told its address")

    async def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        async with self._session.request(method, f"{self.url}/sandbox/{path}", data=body) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer


def bought(ledger: dict[str, Any]) -> tuple[Bought, ...]:
    """Every generation that the hub ever took."""
    fates = {key: post["fate"] for post in ledger["posts"] for key in post["generation_ids"]}
    return tuple(
        Bought(
            generation_id=entry["generation_id"],
            prompt=entry["prompt"],
            status=entry["status"],
            posted_at=entry["posted_at"],
            ended_at=entry["ended_at"],
            fate=fates.get(entry["generation_id"], ""),
        )
        for entry in ledger["generations"]
    )


def streams(ledger: dict[str, Any]) -> tuple[StreamSpan, ...]:
    """Every stream that the hub has served."""
    return tuple(StreamSpan(span["opened_at"], span["closed_at"]) for span in ledger["stream_log"])
