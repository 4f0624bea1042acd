"""CPU and memory of the processes of a run, from /proc: sampled, so that any part of it can be looked at afterwards."""

from __future__ import annotations

import asyncio
import bisect
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
EVERY_S = 0.2


class Usage:
    """Samples while entered. `roots` and `alone` name process ids; what the roots have started counts with them."""

    def __init__(self, roots: Mapping[str, int], alone: Mapping[str, int] | None = None) -> None:
        self._roots = dict(roots)
        self._alone = dict(alone or {})
        self._times: list[float] = []
        self._cpu: dict[str, list[float]] = {name: [] for name in (*self._roots, *self._alone)}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _sample(self) -> None:
        while True:
            parents = _parents()
            self._times.append(time.time())
            for name, root in self._roots.items():
                below = (pid for pid, parent in parents.items() if parent == root)
                self._cpu[name].append(cpu_of(root, reaped=True) + sum(map(cpu_of, below)))
            for name, pid in self._alone.items():
                self._cpu[name].append(cpu_of(pid))
            await asyncio.sleep(EVERY_S)

    def cpu(self, began: float, ended: float) -> dict[str, float]:
        """CPU seconds of each between two moments (Unix seconds)."""
        return {name: self._at(name, ended) - self._at(name, began) for name in self._cpu}

    def _at(self, name: str, moment: float) -> float:
        after = min(bisect.bisect_left(self._times, moment), len(self._times) - 1)
        if after == 0:
            return self._cpu[name][0]
        (t0, t1), (c0, c1) = self._times[after - 1 : after + 1], self._cpu[name][after - 1 : after + 1]
        return c0 + (c1 - c0) * min(1.0, (moment - t0) / (t1 - t0))


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            found[int(entry.name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def cpu_of(pid: int, *, reaped: bool = False) -> float:
    """CPU seconds that a process has used; with those of the children that have ended, if wanted."""
    fields = _stat(pid)
    return sum(int(field) for field in fields[11 : 15 if reaped else 13]) / TICKS
