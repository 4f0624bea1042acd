"""Publishes the outbox, in order within each request, with confirms; a row that cannot be published waits apart.

While more waits than one batch holds, the next one is read as the last is being confirmed: else a relay would spend
most of its time waiting, and several replicas would take in faster than the one that leads can tell. Two batches never
hold events of the same request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from service.clock import utc_now
from service.domain.errors import BrokerUnavailableError, PermanentError, TransientError
from service.domain.messages import OutboxEvent, OutboxRow
from service.domain.retry import Backoff
from service.telemetry import Metrics
from service.workers.batches import BUSY_PER_S, Pace
from service.workers.ports import Bus, EventStore
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
PACE_S = 0.04
EVENTS = 3  # of a request


@dataclass(slots=True)
class Tally:
    """What became of one batch."""

    published: list[OutboxRow] = field(default_factory=list)
    failed: list[tuple[OutboxRow, str]] = field(default_factory=list)
    cut_off: str | None = None  # the broker went away: of these nobody knows, and the rest was not tried

    def count(self, row: OutboxRow, error: Exception | None) -> None:
        """Notes the outcome of one."""
        if error is None:
            self.published.append(row)
        elif isinstance(error, BrokerUnavailableError):
            self.cut_off = str(error)
        else:
            self.failed.append((row, str(error) if isinstance(error, PermanentError) else type(error).__name__))


class Relay:
    """Takes due events in batches; runs while this replica leads, and marks in its term only."""

    name = "relay"

    def __init__(
        self, events: EventStore, bus: Bus, wakeups: Wakeups, metrics: Metrics, *, term: int, batch_limit: int = 500
    ) -> None:
        self._events = events
        self._bus = bus
        self._wakeups = wakeups
        self._metrics = metrics
        self._publishing = metrics.stage("publishing")
        self._term = term
        self._batch_limit = batch_limit
        self._backoff = Backoff(first=1.0, limit=300.0)
        self._pace = Pace(PACE_S, EVENTS * BUSY_PER_S)
        self._reading = asyncio.Lock()  # a drain beside the loop would read the same rows
        self._in_hand: dict[int, OutboxRow] = {}  # read here, and not yet marked
        self._under_way: set[asyncio.Task[int]] = set()

    async def run(self) -> None:
        """Publishes until cancelled."""
        failures = 0
        while True:
            self._wakeups.events.clear()
            try:
                while await self.run_once():
                    failures = 0
            except TransientError as error:
                failures += 1
                self._metrics.batch_failures.labels("relay").inc()
                log.warning("relay.delayed", reason=str(error), failures=failures)
                await asyncio.sleep(Backoff(first=0.2, limit=5).jittered(failures))
            else:
                await self._wakeups.events.wait()

    async def drain(self) -> None:
        """Publishes what is due; what cannot be published now stays for the next leader."""
        try:
            while await self.run_once() or self._under_way:
                if self._under_way:  # the loop's own batch
                    await asyncio.wait(self._under_way)
        except TransientError as error:
            log.warning("relay.not_emptied", reason=str(error))

    async def run_once(self) -> int:
        """Publishes what is due; answers how many events. With a full batch under way, the next one is begun at once.
        BrokerUnavailableError when the broker went away meanwhile."""
        began, published = time.monotonic(), 0
        last: asyncio.Task[int] | None = None
        try:
            while rows := await self._take():
                before, last = last, self._begin(rows)
                if before is not None:
                    if not (done := await before):  # nothing of a full batch: not now
                        break
                    published += done
                if len(rows) < self._batch_limit:
                    break
            if last is not None:
                published += await last
        finally:
            if last is not None:
                last.cancel()  # unless it is done
                await asyncio.wait([last])
        rest = self._pace.rest(published, began, time.monotonic())
        if rest and published < self._batch_limit:
            await asyncio.sleep(rest)
        return published

    async def _take(self) -> list[OutboxRow]:
        """The next events, in hand from here on; none of a request of which one is in hand already."""
        async with self._reading:
            rows = await self._events.due(self._batch_limit, utc_now(), self._in_hand)
            held = {row.event.request_id for row in self._in_hand.values() if row.event.stored}
            rows = [row for row in rows if not (row.event.stored and row.event.request_id in held)]
            self._in_hand |= {row.row_id: row for row in rows}
            return rows

    def _begin(self, rows: Sequence[OutboxRow]) -> asyncio.Task[int]:
        """Publishes them from here on. They are out of hand once that has ended, however it did."""
        batch = asyncio.create_task(self._publish_batch(rows))
        self._under_way.add(batch)

        def ended(_: asyncio.Task[int]) -> None:
            self._under_way.discard(batch)
            for row in rows:
                del self._in_hand[row.row_id]
            if not batch.cancelled():
                batch.exception()  # told to whoever waits; when one fails, nobody waits for the other

        batch.add_done_callback(ended)
        return batch

    async def _publish_batch(self, rows: Sequence[OutboxRow]) -> int:
        began = time.monotonic()
        tally = Tally()
        chains = _chains(rows)
        while chains and tally.cut_off is None:  # of each request one event at a time: the next after its confirm
            went = await self._publish([chain.popleft() for chain in chains], tally)
            chains = [chain for chain, gone in zip(chains, went, strict=True) if gone and chain]
        marked = await self._mark(tally)
        self._metrics.batch("relay", len(rows), time.monotonic() - began)
        if tally.published:  # the oldest of a batch has waited longest
            self._publishing((utc_now() - tally.published[0].created_at).total_seconds())
        if len(rows) > 1:
            log.info("relay.batch", size=len(rows), published=len(tally.published))
        if tally.cut_off is not None:
            raise BrokerUnavailableError(tally.cut_off)
        if tally.published and not marked:  # the term is over: pause, or the same events would go out in a tight loop
            log.warning("relay.not_marked", term=self._term, published=len(tally.published))
            return 0
        return len(tally.published)

    async def _publish(self, rows: Sequence[OutboxRow], tally: Tally) -> list[bool]:
        """Publishes these events at once; answers of each whether it is out."""
        told = [row for row in rows if row.event.routing_key is not None]
        outcomes: Sequence[Exception | None] = await self._bus.publish_events([row.event for row in told])
        errors = {row.row_id: error for row, error in zip(told, outcomes, strict=True) if error is not None}
        asked = [row for row in rows if row.event.reply_to is not None and row.row_id not in errors]
        if asked:
            outcomes = await asyncio.gather(*(self._reply(row.event) for row in asked))
            errors |= {row.row_id: error for row, error in zip(asked, outcomes, strict=True) if error is not None}
        for row in rows:
            tally.count(row, errors.get(row.row_id))
        return [row.row_id not in errors for row in rows]

    async def _reply(self, event: OutboxEvent) -> Exception | None:
        """Answers what kept the event from being done with."""
        try:
            arrived = await self._bus.publish_reply(event)
        except BrokerUnavailableError as error:
            return error
        except Exception as error:  # whatever this event does to the code: the others go out
            log.exception("event.broke", request_id=event.request_id)
            return error
        if not arrived:
            self._metrics.replies_undeliverable.inc()
            log.info("reply.undeliverable", request_id=event.request_id)
        return None

    async def _mark(self, tally: Tally) -> int:
        now, marked = utc_now(), 0
        if tally.published:
            marked = await self._events.mark_published([row.row_id for row in tally.published], self._term)
            for kind, count in Counter(row.event.type for row in tally.published).items():
                self._metrics.published.labels(kind).inc(count)
        if tally.failed:
            for row, reason in tally.failed:
                log.error(
                    "event.not_published", request_id=row.event.request_id, event_type=row.event.type, reason=reason
                )
            await self._events.mark_failed(
                [
                    (row.row_id, now + timedelta(seconds=self._backoff.jittered(row.failures + 1)))
                    for row, _ in tally.failed
                ]
            )
        return marked


def _chains(rows: Iterable[OutboxRow]) -> list[deque[OutboxRow]]:
    """Rows by request, in their order. Answers to messages that were not accepted stand alone."""
    chains: dict[object, deque[OutboxRow]] = {}
    for row in rows:
        key = row.event.request_id if row.event.stored else row.row_id
        chains.setdefault(key, deque()).append(row)
    return list(chains.values())
