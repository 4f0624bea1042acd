"""Reasons to look: set by whoever made work, and by the pulse for what was made elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from service.clock import utc_now
from service.domain.errors import TransientError
from service.workers.ports import Store

log = structlog.get_logger(__name__)
PROMOTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Wakeups:
    """One flag for each kind of waiting work; the worker clears it before it looks."""

    requests: asyncio.Event = field(default_factory=asyncio.Event)  # something may be claimed
    events: asyncio.Event = field(default_factory=asyncio.Event)  # something may be published
    ends: asyncio.Event = field(default_factory=asyncio.Event)  # and an end is among it, which somebody waits for
    claims: asyncio.Event = field(default_factory=asyncio.Event)  # a claim ran out
    doubts: asyncio.Event = field(default_factory=asyncio.Event)  # a POST's outcome is to be found out
    stops: asyncio.Event = field(default_factory=asyncio.Event)  # a deadline passed, or outputs are to be ended
    cancels: asyncio.Event = field(default_factory=asyncio.Event)  # a request came whose cancel was there before it
    lease: asyncio.Event = field(default_factory=asyncio.Event)  # a leader has given its lease back


class Pulse:
    """Once a second, one statement: is there work that nobody here was told of? So a lost wake-up costs a second."""

    name = "pulse"

    def __init__(self, store: Store, wakeups: Wakeups, interval_s: float = 1.0) -> None:
        self._store = store
        self._wakeups = wakeups
        self._interval_s = interval_s

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look()
            except TransientError as error:
                log.warning("pulse.missed", reason=str(error))
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Looks once; what was backed off and is due is put among what may be claimed."""
        now, wakeups = utc_now(), self._wakeups
        pending = await self._store.pending(now)
        if pending.retries:
            while await self._store.promote(PROMOTED_AT_ONCE, now) == PROMOTED_AT_ONCE:
                pass
        waiting = {
            wakeups.requests: pending.requests or pending.retries,
            wakeups.events: pending.events,
            wakeups.claims: pending.claims,
            wakeups.doubts: pending.doubts,
            wakeups.stops: pending.stops,
            wakeups.cancels: pending.cancels,
        }
        for flag, wanted in waiting.items():
            if wanted:
                flag.set()

    async def drain(self) -> None:
        """Nothing is held here."""
