"""The replicas: so many at all times; one that was killed is replaced, and the one that leads is known by its log."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tests.chaos.evidence import LogLine
from tests.support.replica import Process

READY_S = 60.0
DRAIN_S = 45.0


class Replica:
    """One process. `frozen` while it is stopped by a signal."""

    def __init__(self, name: str, variables: Mapping[str, str]) -> None:
        self.name = name
        self.frozen = False
        self.process = Process(variables)
        self._seen = 0
        self._term: int | None = None

    async def start(self) -> None:
        """Starts it; it is not ready yet."""
        await self.process.__aenter__()

    async def ready(self) -> None:
        """Waits until it consumes."""
        await self.process.logged("consumer.started", READY_S)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.process.returncode is None

    @property
    def term(self) -> int | None:
        """The term in which it leads by its own log; None while it does not."""
        lines = self.process.lines
        for line in lines[self._seen :]:
            if line.get("event") == "leadership.taken":
                self._term = line["term"]
            elif line.get("event") in ("leadership.lost", "leadership.given_back"):
                self._term = None
        self._seen = len(lines)
        return self._term

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; one that has ended is left alone."""
        if self.running:
            self.process.process.send_signal(number)

    async def end(self) -> None:
        """Kills it if it still runs, and reads its log to the end."""
        await self.process.__aexit__()

    def log(self) -> list[LogLine]:
        """What it has said."""
        return [
            LogLine(
                replica=self.name,
                at=datetime.fromisoformat(line["timestamp"]).timestamp(),
                event=line["event"],
                level=line["level"],
                fields=line,
            )
            for line in self.process.lines
        ]

    def save(self, folder: Path) -> None:
        """Writes log and errors to files, for whoever wants to know more."""
        text = "".join(json.dumps(line) + "\n" for line in self.process.lines)
        (folder / f"{self.name}.log").write_text(text)
        if self.process.errors:
            (folder / f"{self.name}.stderr").write_text("".join(self.process.errors))


class Troupe:
    """`size` replicas with the same settings. Every one that ever was is in `all`."""

    def __init__(self, variables: Mapping[str, str], size: int) -> None:
        self._variables = variables
        self._size = size
        self.all: list[Replica] = []
        self.present: list[Replica] = []
        self.exit_codes: dict[str, int] = {}

    async def start(self) -> None:
        """Starts them at the same time; returns when all consume."""
        await asyncio.gather(*(self.add() for _ in range(self._size)))
        await asyncio.gather(*(replica.ready() for replica in self.present))

    async def add(self) -> Replica:
        """One more; it may be killed before it is ready."""
        replica = Replica(f"replica-{len(self.all) + 1}", self._variables)
        self.all.append(replica)
        await replica.start()
        self.present.append(replica)
        return replica

    @property
    def leader(self) -> Replica | None:
        """Who leads by the logs, and is able to; None during a hand-over."""
        leading = [(replica.term, replica) for replica in self.present if replica.running and not replica.frozen]
        named = [(term, replica) for term, replica in leading if term is not None]
        return max(named, key=lambda pair: pair[0])[1] if named else None

    async def wait_leader(self, timeout_s: float) -> Replica:
        """The one that leads, as soon as one does."""
        async with asyncio.timeout(timeout_s):
            while (leader := self.leader) is None:
                await asyncio.sleep(0.05)  # a log has no event for "any of them"
        return leader

    async def wait_follower(self, pick: float, timeout_s: float) -> Replica:
        """One of those that run, are awake and do not lead, as soon as there is one; `pick` in [0, 1) says which."""
        async with asyncio.timeout(timeout_s):
            while True:
                leader = self.leader
                others = [one for one in self.present if one.running and not one.frozen and one is not leader]
                if leader is not None and others:
                    return others[int(pick * len(others))]
                await asyncio.sleep(0.05)

    async def kill(self, replica: Replica) -> float:
        """SIGKILL; the moment of it."""
        at = time.time()
        replica.signal(signal.SIGKILL)
        self.present.remove(replica)
        await replica.process.ended(10)
        return at

    async def drain(self) -> None:
        """SIGTERM to all who are there, and their exit codes; who does not end in time is killed, and has code -9."""

        async def one(replica: Replica) -> None:
            replica.process.terminate()
            try:
                self.exit_codes[replica.name] = await replica.process.ended(DRAIN_S)
            except TimeoutError:
                self.exit_codes[replica.name] = -signal.SIGKILL

        await asyncio.gather(*(one(replica) for replica in self.present if replica.running))

    async def close(self) -> None:
        """Ends every process that still runs, and reads the logs to their end."""
        for replica in self.all:
            replica.signal(signal.SIGKILL)
        for replica in self.all:
            if hasattr(replica.process, "process"):
                await replica.end()
