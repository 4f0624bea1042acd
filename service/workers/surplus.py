"""Looks whether something was bought twice after all: a hub may show a generation later than the grace.

A request that was submitted again after a doubt is watched for a while. A generation of the same content that belongs
to no request is then surplus: it is told and counted, and where it carries a mark of ours, so that it can be nobody
else's, the hub is asked to end it, which may still save what it costs. The watch is the leader's memory: a change of
hands ends it early.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.matching import Doubt, Sighting, concerning, matches
from service.domain.patience import Patience
from service.telemetry import Metrics
from service.workers.ports import Hub, Store

log = structlog.get_logger(__name__)
LOOKS = 60  # in the time of a watch: every ten seconds in ten minutes


@dataclass(frozen=True, slots=True)
class Watch:
    """A request that was submitted again, watched until that moment of the monotonic clock."""

    doubt: Doubt
    until: float


class Surplus:
    """Works while this replica leads, and only while something is watched."""

    name = "surplus"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        metrics: Metrics,
        *,
        patience: Patience,
    ) -> None:
        self._store = store
        self._hub = hub
        self._metrics = metrics
        self._watch_s = patience.surplus.total_seconds()
        self._watched: dict[str, Watch] = {}
        self._told: set[str] = set()
        self._begun = asyncio.Event()

    def watch(self, doubt: Doubt) -> None:
        """From now on, for as long as the patience says."""
        self._watched[doubt.request.request_id] = Watch(doubt, time.monotonic() + self._watch_s)
        self._begun.set()

    async def run(self) -> None:
        """Looks at an interval while something is watched, until cancelled."""
        while True:
            await self._begun.wait()
            await asyncio.sleep(self._watch_s / LOOKS)
            try:
                await self.look()
            except (TransientError, HubUnavailableError, HubRefusedKeyError) as error:
                log.warning("surplus.not_looked_for", reason=str(error))
            now = time.monotonic()
            self._watched = {key: watch for key, watch in self._watched.items() if watch.until > now}
            if not self._watched:
                self._begun.clear()
                self._told.clear()

    async def drain(self) -> None:
        """Nothing is held here."""

    async def look(self) -> None:
        """One list of each namespace in which something is watched."""
        namespaces: dict[str | None, list[Doubt]] = {}
        for watch in self._watched.values():
            namespaces.setdefault(watch.doubt.request.target_namespace, []).append(watch.doubt)
        for namespace, doubts in namespaces.items():
            shown = (await self._hub.sightings(namespace, concerning(doubts))).sightings
            new = [sighting for sighting in shown if sighting.generation_id not in self._told]
            owned = await self._store.owned([sighting.generation_id for sighting in new]) if new else {}
            for sighting in new:
                if sighting.generation_id not in owned:
                    await self._tell(sighting, next(doubt for doubt in doubts if matches(doubt, sighting)))

    async def _tell(self, sighting: Sighting, doubt: Doubt) -> None:
        """Told once. What belongs to an attempt under way has no owner yet: it is looked at again. Who owns it is asked
        after that, since the attempt may have ended, and its ids been stored, after the first question."""
        request = (await self._store.load([doubt.request.request_id])).get(doubt.request.request_id)
        if request is not None and not request.outputs and not request.state.ended:
            return
        if await self._store.owned([sighting.generation_id]):
            return
        self._told.add(sighting.generation_id)
        self._metrics.unowned.labels("shown_late").inc()
        log.error(
            "generation.unowned",
            request_id=doubt.request.request_id,
            generation_id=[sighting.generation_id],
            cause="the hub showed it only after the grace" if doubt.marked else "perhaps shown only after the grace",
        )
        if doubt.marked:
            await self._hub.cancel(sighting.generation_id)
            log.warning("generation.surplus_cancelled", generation_id=sighting.generation_id)
