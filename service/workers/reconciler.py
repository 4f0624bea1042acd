"""Finds what the stream did not say: one list of the active generations, then a GET for each that is missing there.

A list proves presence only; an end is proven by a GET.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.facts import OutcomeUnknown
from service.supervisor import run_together
from service.telemetry import Metrics
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
CHUNK = 64
MAX_FETCHES_OF_PARTIAL = 500  # a sweep, when the list has shown that it leaves things out
ORPHANS_AT_ONCE = 500
CLAIMS_AT_ONCE = 500


class Reconciler:
    """Sweeps when asked (after every opening of the stream) and at an interval; one sweep at a time."""

    name = "reconciler"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        settler: Settler,
        gap: Gap,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        interval_s: float,
    ) -> None:
        self._store = store
        self._hub = hub
        self._settler = settler
        self._gap = gap
        self._wakeups = wakeups
        self._metrics = metrics
        self._interval_s = interval_s
        self._requested = asyncio.Event()
        self._reason = "the interval"

    def request_sweep(self, reason: str) -> None:
        """Asks for a sweep that begins after this call."""
        self._reason = reason
        self._requested.set()

    async def run(self) -> None:
        """Works until cancelled."""
        await run_together(self._sweep_when_due(), self._doubt_expired_claims())

    async def drain(self) -> None:
        """Nothing is held here: a sweep that is cut off is begun anew."""

    async def _sweep_when_due(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._requested.wait()
            except TimeoutError:
                self._reason = "the interval"
            self._requested.clear()
            try:
                await self.sweep(self._reason)
            except TransientError as error:
                log.warning("sweep.failed", reason=str(error))

    async def sweep(self, reason: str) -> None:
        """One sweep over everything in flight."""
        began = time.monotonic()
        await self._settler.settle_reports(await self._store.matched_orphans(ORPHANS_AT_ONCE))
        in_flight = await self._store.in_flight(utc_now())
        by_namespace: dict[str | None, list[str]] = {}
        for generation_id, namespace in in_flight:
            by_namespace.setdefault(namespace, []).append(generation_id)
        missing = 0
        for namespace, generation_ids in by_namespace.items():
            try:
                missing += await self._sweep_namespace(namespace, generation_ids)
            except (HubUnavailableError, HubRefusedKeyError) as error:  # the other namespaces have their own chance
                log.warning("sweep.not_listed", namespace=namespace, reason=str(error))
        took = time.monotonic() - began
        self._metrics.sweeps.observe(took)
        log.info("sweep.done", cause=reason, in_flight=len(in_flight), missing=missing, seconds=round(took, 3))

    async def _sweep_namespace(self, namespace: str | None, generation_ids: Sequence[str]) -> int:
        """One list, and the fetches that follow from it; answers how many were missing from the list."""
        listing = await self._hub.active(namespace)
        missing = [key for key in generation_ids if key not in listing.generation_ids]
        partial = not listing.complete
        for start in range(0, len(missing), CHUNK):
            if partial and start >= MAX_FETCHES_OF_PARTIAL:
                log.warning("sweep.list_partial", namespace=namespace, left=len(missing) - start)
                break
            answers = await self._gap.fetch(missing[start : start + CHUNK])
            partial = partial or any(answer is not None and not answer.status.ended for answer in answers)
        return len(missing)

    async def _doubt_expired_claims(self) -> None:
        """A submitter that died or froze between its claim and its answer leaves a doubt behind."""
        while True:
            await self._wakeups.claims.wait()
            self._wakeups.claims.clear()
            try:
                await self.doubt_expired_claims()
            except (TransientError, HubUnavailableError) as error:
                log.warning("claims.not_looked_at", reason=str(error))
                await asyncio.sleep(1)

    async def doubt_expired_claims(self) -> None:
        """Moves requests whose claim ran out to `in_doubt`."""
        fact = OutcomeUnknown("the claim ran out before the outcome of the POST was written")
        request_ids = await self._store.expired_claims(CLAIMS_AT_ONCE)
        await self._settler.settle([Case(request_id, [fact]) for request_id in request_ids])
