"""The one SSE connection of all replicas: reads completions, hands them to the settler in batches.

Order at every (re)connect: the stream is open, then everybody is told since when, then the gap is swept.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import structlog

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError, TransientError
from service.domain.facts import OutputReported
from service.domain.retry import Backoff
from service.supervisor import run_together
from service.telemetry import Metrics
from service.workers.batches import Batches
from service.workers.ports import Lease, Stream
from service.workers.reconciler import Reconciler
from service.workers.settler import Settler

log = structlog.get_logger(__name__)
STEADY_S = 1.0  # a stream that stood this long was a good one, however often it is cut: reconnect at once
PACE_S = 0.03  # on the way of a result: as short as batches of a busy hub pay for
WATCH_S = 1.0


class Listener:
    """Keeps the stream open while this replica leads."""

    name = "listener"

    def __init__(
        self,
        stream: Stream,
        settler: Settler,
        reconciler: Reconciler,
        lease: Lease,
        metrics: Metrics,
        *,
        term: int,
        freed: asyncio.Event | None = None,
    ) -> None:
        self._stream = stream
        self._settler = settler
        self._reconciler = reconciler
        self._lease = lease
        self._metrics = metrics
        self._term = term
        self._silent_since = time.monotonic()  # since when nothing is heard, while no stream stands
        self._freed = freed  # whom to wake when generations have ended, where their number is limited
        self._opened = asyncio.Event()
        self._stands = False
        self._stands_since: float | None = None
        self._reports: Batches[OutputReported] = Batches("reports", self._settle, metrics=metrics, pace_s=PACE_S)

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            await run_together(self._reports.run(), self._announce(), self._listen(), self._watch_silence())
        finally:
            self._metrics.show_heard(None)

    async def drain(self) -> None:
        """Writes what was heard; the stream stays open meanwhile, what it says then is swept by the next leader."""
        await self._reports.drain()

    async def _listen(self) -> None:
        backoff, failures = Backoff(first=0.25, limit=15), 0
        while True:
            began = time.monotonic()
            self._stands_since = None
            try:
                await self._stream.listen(self._on_open, self._on_report)
            except HubRefusedKeyError as error:
                failures = max(failures + 1, 6)  # a wrong key does not mend itself: ask rarely, and say so
                log.warning("stream.refused", reason=str(error))
            except HubUnavailableError as error:
                failures = 0 if self._stood() else failures + 1
                log.warning("stream.lost", reason=str(error), after_s=round(time.monotonic() - began, 1))
            finally:
                if self._stands:
                    self._silent_since = time.monotonic()
                self._stands = False
                self._metrics.stream_connected.set(0)
                self._metrics.show_heard(None)
            self._metrics.stream_reconnects.inc()
            if failures:
                await asyncio.sleep(backoff.jittered(failures))

    def _stood(self) -> bool:
        return self._stands_since is not None and time.monotonic() - self._stands_since > STEADY_S

    def _on_open(self) -> None:
        self._stands_since, self._stands = (now := time.monotonic()), True
        self._metrics.stream_connected.set(1)
        self._metrics.show_heard(now)
        self._metrics.stream_gaps.observe(now - self._silent_since)
        log.info("stream.opened")
        self._opened.set()

    def _on_report(self, report: OutputReported) -> None:
        self._reports.add(report)

    async def _watch_silence(self) -> None:
        """Tells the metrics when the stream said something last, keep-alives included."""
        seen = 0
        while True:
            await asyncio.sleep(WATCH_S)
            if (received := self._stream.received) != seen and self._stands:
                self._metrics.show_heard(time.monotonic())
            seen = received

    async def _announce(self) -> None:
        """After each opening: tell all replicas, then sweep."""
        while True:
            await self._opened.wait()
            self._opened.clear()
            await self._note_opening(utc_now())
            self._reconciler.request_sweep("the stream was opened")

    async def _note_opening(self, opened_at: datetime) -> None:
        """Until it is noted, or the stream was opened anew: all replicas go by it."""
        backoff, failures = Backoff(first=0.2, limit=2), 0
        while not self._opened.is_set():
            try:
                await self._lease.note_stream_opened(opened_at, self._term)
            except TransientError as error:
                failures += 1
                log.warning("stream.opening_not_noted", reason=str(error), failures=failures)
                await asyncio.sleep(backoff.jittered(failures))
            else:
                return

    async def _settle(self, reports: list[OutputReported]) -> None:
        ended = await self._settler.settle_reports(reports)
        self._metrics.completions.labels("stream").inc(ended)
        if self._freed is not None:
            self._freed.set()
        if len(reports) > 1:
            log.info("reports.batch", size=len(reports))
