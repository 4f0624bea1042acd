"""Micro-batching: whatever gathered while the last flush ran is the next batch.

Alone, an item is a batch of one and waits for nobody; under load the commits are shared. A step that is busy may pace
itself: its batches then begin `pace_s` apart, and are the larger for it, since a statement costs nearly as much for one
row as for ten.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from service.domain.errors import TransientError
from service.domain.retry import Backoff
from service.telemetry import Metrics

T = TypeVar("T")
BUSY = 8  # items in a batch, at the least, of a step that paces itself
BUSY_PER_S = 400  # and items a second
log = structlog.get_logger(__name__)


class Pace:
    """When the next batch of a step may begin: `apart_s` after the last one while the step is busy, else at once.

    Busy is a step whose batches hold several items, and to which `busy_per_s` or more come: below that, waiting would
    cost time and spare next to nothing.
    """

    def __init__(self, apart_s: float, busy_per_s: float = BUSY_PER_S) -> None:
        self._apart_s = apart_s
        self._busy_per_s = busy_per_s
        self._began = -math.inf

    def rest(self, size: int, began: float, now: float) -> float:
        """Seconds to wait after a batch of `size` items that began at `began`; monotonic times."""
        since, self._began = began - self._began, began
        busy = size >= max(BUSY, self._busy_per_s * since)
        return max(0.0, began + self._apart_s - now) if busy else 0.0


class Batches(Generic[T]):
    """Items on their way to `flush`, at most `limit` at a time, one flush after another, in order.

    A flush that fails for a passing reason is tried again with the same items until it succeeds, so `flush` must be
    safe to repeat. `failing` is told after each failure for how many seconds that has gone on, and 0 at the end. One
    that fails for any other reason is done item by item, and the item that breaks it is handed to `poisoned`: one bad
    thing stays one bad thing. `metrics` counts batches and failures, under the name as the step. Of a busy step a full
    batch begins at once, others `pace_s` apart.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[list[T]], Awaitable[None]],
        limit: int = 500,
        poisoned: Callable[[T], None] | None = None,
        failing: Callable[[float], None] | None = None,
        *,
        metrics: Metrics | None = None,
        pace_s: float = 0.0,
    ) -> None:
        self.name = name
        self._flush = flush
        self._limit = limit
        self._poisoned = poisoned
        self._failing = failing or (lambda _: None)
        self._metrics = metrics
        self._pace = Pace(pace_s)
        self._items: list[T] = []
        self._filled = asyncio.Event()
        self._full = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def add(self, item: T) -> None:
        """Hands over one item; never waits."""
        self._items.append(item)
        self._emptied.clear()
        self._filled.set()
        if len(self._items) >= self._limit:
            self._full.set()

    async def run(self) -> None:
        """Flushes until cancelled. An item stays here until it is done, so a run that is begun anew goes on with it."""
        while True:
            while self._items:
                batch, began = self._items[: self._limit], time.monotonic()
                await self._until_done(batch)
                del self._items[: len(batch)]
                await self._rest(self._pace.rest(len(batch), began, time.monotonic()))
            self._emptied.set()
            self._filled.clear()
            await self._filled.wait()

    async def drain(self) -> None:
        """Waits until everything handed over has been flushed."""
        await self._emptied.wait()

    async def _rest(self, seconds: float) -> None:
        if not seconds or len(self._items) >= self._limit:
            return
        self._full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._full.wait()

    async def _until_done(self, batch: list[T]) -> None:
        backoff, failures, began = Backoff(first=0.1, limit=5), 0, time.monotonic()
        while True:
            tried = time.monotonic()
            try:
                await self._flush(batch)
                if self._metrics is not None:
                    self._metrics.batch(self.name, len(batch), time.monotonic() - tried)
            except TransientError as error:
                failures += 1
                self._count_failure()
                log.warning("batch.delayed", step=self.name, size=len(batch), failures=failures, reason=str(error))
                self._failing(time.monotonic() - began)
                await asyncio.sleep(backoff.jittered(failures))
                continue
            except Exception:  # a defect, or data that nobody foresaw: find the item, and go on without it
                self._count_failure()
                log.exception("batch.broke", step=self.name, size=len(batch))
                await self._isolate(batch)
            self._failing(0.0)
            return

    def _count_failure(self) -> None:
        if self._metrics is not None:
            self._metrics.batch_failures.labels(self.name).inc()

    async def _isolate(self, batch: list[T]) -> None:
        if len(batch) > 1:
            for item in batch:
                await self._until_done([item])
        elif self._poisoned is not None:
            self._poisoned(batch[0])
