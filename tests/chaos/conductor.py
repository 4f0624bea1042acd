"""Does the faults of a schedule at their moments, and keeps what was done when."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

from tests.chaos.evidence import Incident
from tests.chaos.schedule import Fault, FaultKind
from tests.chaos.stage import Stage
from tests.chaos.troupe import Replica, Troupe

VICTIM_WITHIN_S = 60.0  # a fault waits this long for somebody whom it can strike


class Conductor:
    """Plays a schedule. Faults overlap as they fall; only one server at a time restarts of each kind."""

    def __init__(self, stage: Stage, troupe: Troupe) -> None:
        self._stage = stage
        self._troupe = troupe
        self._broker = asyncio.Lock()
        self._database = asyncio.Lock()
        self._leader = asyncio.Lock()
        self.incidents: list[Incident] = []

    async def play(self, faults: Sequence[Fault]) -> None:
        """Returns when the last fault is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, fault.at_s - (time.monotonic() - began)))
                group.create_task(self._strike(fault))

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case FaultKind.KILL_LEADER:
                async with self._leader:
                    victim = await self._troupe.wait_leader(VICTIM_WITHIN_S)
                    await self._kill(fault.kind, victim)
            case FaultKind.KILL_FOLLOWER:
                await self._kill(fault.kind, await self._troupe.wait_follower(fault.pick, VICTIM_WITHIN_S))
            case FaultKind.FREEZE_LEADER:
                await self._freeze(fault.for_s)
            case FaultKind.KILL_BROKER:
                async with self._broker:
                    began_at = time.time()
                    await self._stage.kill_broker(fault.for_s)
                    self._note(fault.kind, began_at)
            case FaultKind.RESTART_DATABASE:
                async with self._database:
                    began_at = time.time()
                    await self._stage.restart_database(fault.for_s)
                    self._note(fault.kind, began_at)
            case FaultKind.CUT_STREAM:
                began_at = time.time()
                if await self._stage.hub.cut_streams():
                    self._note(fault.kind, began_at)

    async def _kill(self, kind: FaultKind, victim: Replica) -> None:
        at = await self._troupe.kill(victim)
        self.incidents.append(Incident(kind, at, at, victim.name))
        await self._troupe.add()

    async def _freeze(self, for_s: float) -> None:
        async with self._leader:
            victim = await self._troupe.wait_leader(VICTIM_WITHIN_S)
            began_at = time.time()
            victim.frozen = True
            victim.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            # Noted before it wakes: what it does from here on comes after this moment.
            self.incidents.append(Incident(FaultKind.FREEZE_LEADER, began_at, time.time(), victim.name))
            victim.signal(signal.SIGCONT)
        victim.frozen = False

    def _note(self, kind: FaultKind, began_at: float) -> None:
        self.incidents.append(Incident(kind, began_at, time.time()))
