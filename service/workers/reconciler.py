"""Finds what the stream did not say: one list of the active generations, then a GET for each that is missing there.

A list proves presence only; an end is proven by a GET.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import structlog

from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.facts import OutcomeUnknown, OutputReported
from service.domain.retry import Backoff
from service.domain.states import InFlight, OutputStatus
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
RETRY = Backoff(first=1.0, limit=60.0)


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
        self._reached = ""
        self._failures = 0  # sweeps in a row that were not finished; a run that is begun anew goes on with them

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
        """At the interval; sooner after a sweep that an ill hub or database cut short, but ever more rarely."""
        while True:
            failures = self._failures
            wait_s = min(self._interval_s, RETRY.jittered(failures)) if failures else self._interval_s
            try:
                async with asyncio.timeout(wait_s):
                    await self._requested.wait()
            except TimeoutError:
                self._reason = "an unfinished sweep" if failures else "the interval"
            self._requested.clear()
            try:
                finished = await self.sweep(self._reason)
            except TransientError as error:
                log.warning("sweep.failed", reason=str(error))
                finished = False
            except asyncio.CancelledError:  # by a driver, or a neighbour that broke: it is begun anew, and so is this
                self._requested.set()
                raise
            except Exception:  # a defect, or data that nobody foresaw: what the sweep was asked for is still to be done
                log.exception("sweep.broke", cause=self._reason)
                finished = False
            self._failures = 0 if finished else failures + 1

    async def sweep(self, reason: str) -> bool:
        """One sweep over everything in flight; False when the hub did not let it finish."""
        began = time.monotonic()
        orphans = await self._store.matched_orphans(ORPHANS_AT_ONCE)
        self._metrics.completions.labels("stream").inc(await self._settler.settle_reports(orphans))
        in_flight = await self._store.in_flight()
        missing, finished = 0, True
        for part in in_flight:
            try:
                absent, complete = await self._sweep_namespace(part)
            except (HubUnavailableError, HubRefusedKeyError) as error:  # the other namespaces have their own chance
                log.warning("sweep.not_listed", namespace=part.namespace, reason=str(error))
                finished = False
            else:
                missing += absent
                finished = finished and complete
        took = time.monotonic() - began
        self._metrics.sweeps.observe(took)
        log.info(
            "sweep.done",
            cause=reason,
            in_flight=sum(len(part.generation_ids) for part in in_flight),
            missing=missing,
            finished=finished,
            seconds=round(took, 3),
        )
        return finished

    async def _sweep_namespace(self, part: InFlight) -> tuple[int, bool]:
        """One list, and the fetches that follow from it; answers how many were missing from the list, and whether all
        that had to be asked for was."""
        listing = await self._hub.active(part.namespace, part.generation_ids)
        absent = set(listing.missing)
        back = [OutputReported(key, OutputStatus.PROCESSING) for key in part.denied if key not in absent]
        await self._settler.settle_outputs(back)
        return len(absent), await self._fetch(part.namespace, self._in_turn(absent), partial=not listing.complete)

    def _in_turn(self, absent: Iterable[str]) -> list[str]:
        """Begins behind what the last sweep of a partial list came to, so that each has its turn."""
        missing = sorted(absent)
        start = bisect_right(missing, self._reached)
        return missing[start:] + missing[:start]

    async def _fetch(self, namespace: str | None, missing: Sequence[str], *, partial: bool) -> bool:
        """In chunks; False when some could not be asked for. A list that lacks what a GET shows to be active is
        partial: then only so many a sweep. A hub that answers most of a chunk with errors is ill: then no more now."""
        failed = 0
        for start in range(0, len(missing), CHUNK):
            if partial and start >= MAX_FETCHES_OF_PARTIAL:
                self._reached = missing[start - 1]
                log.warning("sweep.list_partial", namespace=namespace, left=len(missing) - start)
                break
            chunk = missing[start : start + CHUNK]
            fetched = await self._gap.fetch(chunk)
            failed += len(fetched.failed)
            if 2 * len(fetched.failed) > len(chunk):
                log.warning("sweep.given_up", namespace=namespace, left=len(missing) - start)
                break
            partial = partial or bool(fetched.active)
        return not failed

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
        reason = "the claim ran out before the outcome of the POST was written"
        expired = await self._store.expired_claims(CLAIMS_AT_ONCE)
        await self._settler.settle(
            [Case(request_id, [OutcomeUnknown(reason, attempt)]) for request_id, attempt in expired]
        )
        self._metrics.doubts_opened.labels("lapsed").inc(len(expired))
