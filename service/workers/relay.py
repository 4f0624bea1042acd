"""Publishes the outbox, in order within each request, with confirms; a row that cannot be published waits apart.

What comes while a batch is being confirmed is the next batch, and does not wait for that: a busy broker confirms after
some tenths of a second what it has passed on long before. Two batches never hold events of the same request. In a batch
the ends go first, since somebody waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
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
PACE_S = 0.04  # of what nobody waits for; ends wake the relay
EVENTS = 3  # of a request


@dataclass(slots=True)
class Tally:
    """What became of one batch."""

    published: list[OutboxRow] = field(default_factory=list)
    failed: list[tuple[OutboxRow, str]] = field(default_factory=list)
    cut_off: str | None = None  # the broker went away: of these nobody knows, and the rest was not tried
    lapsed: bool = False  # the term was over before it was marked: all of it will be published again

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
        self._left = True  # there may be more than was taken
        self._last: int | None = None  # of what a drain still publishes: more may come for as long as others write
        self._failures = 0  # since anything was published
        self._under_way: set[asyncio.Task[Tally]] = set()

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            try:
                await self.run_once()
            except TransientError as error:
                self._failures += 1
                self._metrics.batch_failures.labels("relay").inc()
                log.warning("relay.delayed", reason=str(error), failures=self._failures)
                await asyncio.sleep(Backoff(first=0.2, limit=5).jittered(self._failures))
            else:
                await self._wakeups.events.wait()

    async def drain(self) -> None:
        """Publishes what is due now; what comes later, or cannot be published now, is for the next leader."""
        try:
            self._last = await self._events.last()
            while await self.run_once() or self._under_way:
                if self._under_way:  # the loop's own batch
                    await asyncio.wait(self._under_way)
        except TransientError as error:
            log.warning("relay.not_emptied", reason=str(error))

    async def run_once(self) -> int:
        """Publishes what is due, and what comes until that is done; answers how many events.
        BrokerUnavailableError when the broker went away meanwhile."""
        batches: set[asyncio.Task[Tally]] = set()
        try:
            return await self._publish_due(batches)
        except TransientError:
            if batches:  # what they publish is to be marked, and not published once more
                await asyncio.wait(batches)
            raise
        finally:
            for batch in batches:
                batch.cancel()  # unless it is done
            if batches:
                await asyncio.wait(batches)

    async def _publish_due(self, batches: set[asyncio.Task[Tally]]) -> int:
        published, self._left = 0, True
        while True:
            for batch in [batch for batch in batches if batch.done()]:
                batches.discard(batch)
                tally = batch.result()
                if tally.lapsed:  # pause, or the same events would go out in a tight loop
                    return published
                published += len(tally.published)
                self._failures = 0  # here, since under load this goes on for hours
            began = time.monotonic()
            if rows := await self._take():
                batches.add(self._begin(rows))
                rest = self._pace.rest(len(rows), began, time.monotonic())
                await self._rest(rest if len(rows) < self._batch_limit else 0)
            if not batches:
                return published
            if len(rows) < self._batch_limit:
                await self._progress(batches)

    async def _rest(self, seconds: float) -> None:
        """Lets more gather, until an end is written: ends have gathered before that, and somebody waits for them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakeups.ends.wait()

    async def _progress(self, batches: Iterable[asyncio.Task[Tally]]) -> None:
        """Waits until a batch has ended, or there is more to publish and room for it."""
        more = asyncio.create_task(self._wakeups.events.wait())
        try:
            waiting = [*batches, more] if self._has_room() else batches
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()

    def _has_room(self) -> bool:
        """No more than two full batches are in hand."""
        return len(self._in_hand) <= self._batch_limit

    async def _take(self) -> list[OutboxRow]:
        """The next events, in hand from here on; none of a request of which one is in hand already, and none while too
        many are."""
        async with self._reading:
            if not self._has_room() or not (self._left or self._wakeups.events.is_set()):
                return []
            self._wakeups.events.clear()
            self._wakeups.ends.clear()
            due = await self._events.due(self._batch_limit, utc_now(), self._in_hand)
            if self._last is not None:
                due = [row for row in due if row.row_id <= self._last]
            held = {row.event.request_id for row in self._in_hand.values() if row.event.stored}
            rows = [row for row in due if not (row.event.stored and row.event.request_id in held)]
            self._left = len(due) == self._batch_limit or len(rows) < len(due)
            self._in_hand |= {row.row_id: row for row in rows}
            return rows

    def _begin(self, rows: Sequence[OutboxRow]) -> asyncio.Task[Tally]:
        """Publishes them from here on. They are out of hand once that has ended, however it did."""
        batch = asyncio.create_task(self._publish_batch(rows))
        self._under_way.add(batch)

        def ended(_: asyncio.Task[Tally]) -> None:
            self._under_way.discard(batch)
            for row in rows:
                del self._in_hand[row.row_id]
            if not batch.cancelled():
                batch.exception()  # told to whoever waits; when one fails, nobody waits for the other

        batch.add_done_callback(ended)
        return batch

    async def _publish_batch(self, rows: Sequence[OutboxRow]) -> Tally:
        began = time.monotonic()
        tally = Tally()
        chains = sorted(_chains(rows), key=_tells_no_end)
        while chains and tally.cut_off is None:  # of each request one event at a time: the next after its confirm
            went = await self._publish([chain.popleft() for chain in chains], tally)
            chains = [chain for chain, gone in zip(chains, went, strict=True) if gone and chain]
        marked = await self._mark(tally)
        self._metrics.batch("relay", len(rows), time.monotonic() - began)
        if tally.published:  # the oldest of a batch has waited longest
            self._publishing((utc_now() - rows[0].created_at).total_seconds())
        if len(rows) > 1:
            log.info("relay.batch", size=len(rows), published=len(tally.published))
        if tally.cut_off is not None:
            raise BrokerUnavailableError(tally.cut_off)
        if tally.published and not marked:
            tally.lapsed = True
            log.warning("relay.not_marked", term=self._term, published=len(tally.published))
        return tally

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


def _tells_no_end(chain: Sequence[OutboxRow]) -> bool:
    return not chain[0].event.terminal
