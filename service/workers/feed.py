"""The outbox fanned out: one reader a replica, however many follow; and for each of them what it has missed.

It looks while somebody follows, and not at all otherwise. Whoever reads too slowly is cut off; nobody waits for him.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import structlog
from msgspec import Struct

from service.domain.errors import DatabaseUnavailableError, TransientError
from service.domain.feed import MOST_TOLD, FeedEvent, Place, Tail, advance, tail_at
from service.domain.retry import Backoff
from service.telemetry import Metrics
from service.workers.ports import FeedSource

log = structlog.get_logger(__name__)
INTERVAL_S = 0.1
PAGE = 500
MOST_OPEN = 1000  # rows that wait for the relay; behind so many there is nothing to show
MOST_UNREAD = 2000  # events that one follower may be behind the others
BEGIN_S = 5.0
SETTLING_LOOKS = 5


class LaggingError(TransientError):
    """A follower was too slow; it may come again, from where it was."""


class Told(Struct, frozen=True):
    """An event with the id to resume from: everything before it was told, and itself."""

    resume: str
    event: FeedEvent


class Feed:
    """Followers, and the loop that serves them."""

    name = "feed"

    def __init__(self, source: FeedSource, metrics: Metrics) -> None:
        self._source = source
        self._metrics = metrics
        self._everything: set[Follower] = set()
        self._by_request: dict[str, set[Follower]] = {}
        self._followers = 0
        self._wanted = asyncio.Event()
        self._begun = asyncio.Event()
        self._tail = Tail(0)
        self._closed = False

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Looks while anybody follows, until cancelled."""
        backoff, failures = Backoff(first=0.2, limit=5), 0
        while True:
            await self._wanted.wait()
            try:
                await self._serve()
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("feed.delayed", reason=str(error))
                await asyncio.sleep(backoff.jittered(failures))

    async def drain(self) -> None:
        """Lets everybody go, to follow elsewhere: what they miss they get there."""
        self._closed = True
        for follower in {*self._everything, *(one for some in self._by_request.values() for one in some)}:
            follower.wake()

    async def _serve(self) -> None:
        if not self._begun.is_set():
            await self._begin()
        while self._followers:
            began = time.monotonic()
            full = await self._look()
            if not full:
                await asyncio.sleep(began + INTERVAL_S - time.monotonic())
        self._begun.clear()
        self._wanted.clear()

    async def _begin(self) -> None:
        """Stands at the end, with what is under way there open; holes that are none are seen as such first, or the
        first places told would be far behind."""
        tail = tail_at(Place(max(0, await self._source.end() - MOST_OPEN)))
        for _ in range(SETTLING_LOOKS):
            more = True
            while more:
                high = tail.high
                look = await self._source.look(high, tail.open, PAGE)
                tail, _seen = advance(tail, look)
                more = look.behind(high) >= PAGE
            if len(tail.open) <= MOST_TOLD:
                break
            await asyncio.sleep(INTERVAL_S / SETTLING_LOOKS)
        self._tail = tail
        self._begun.set()

    async def _look(self) -> bool:
        """One look; whether there may be more at once."""
        before = self._tail
        limit = min(PAGE, max(0, MOST_OPEN - len(before.open)))
        look = await self._source.look(before.high, before.open, limit)
        self._tail, events = advance(before, look)
        if events:
            self._tell(_told(events, before.place, self._tail.place))
        return limit > 0 and self._tail.high - before.high >= limit

    def _tell(self, told: Sequence[Told]) -> None:
        for follower in self._everything:
            follower.add(told)
        for item in told:
            for follower in self._by_request.get(item.event.request_id, ()):
                follower.add([item])

    # -- followers ------------------------------------------------------------------------------------------------

    async def follow(
        self, request_id: str | None = None, place: Place | None = None, *, answers: bool = True
    ) -> Follower:
        """A follower of one request, or of everything; from `place` on, else one request from its beginning (with the
        earlier `answers` to messages of its id that were not accepted) and everything from now.
        DatabaseUnavailableError. It must be left."""
        self._followers += 1
        self._metrics.feed_followers.inc()
        follower = Follower(self, self._source, request_id, place, answers=answers)
        try:
            await self._under_way()
            if request_id is not None or place is None:
                follower.join()
        except BaseException:
            self.leave(follower)
            raise
        return follower

    async def _under_way(self) -> None:
        self._wanted.set()
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._begun.wait()
        except TimeoutError:
            raise DatabaseUnavailableError(f"The events could not be read within {BEGIN_S:g} s; try again.") from None

    def register(self, follower: Follower) -> Tail:
        """From here on it is told everything behind the tail that this answers."""
        if follower.request_id is None:
            self._everything.add(follower)
        else:
            self._by_request.setdefault(follower.request_id, set()).add(follower)
        return self._tail

    def leave(self, follower: Follower) -> None:
        """It is told nothing more."""
        if follower.left:
            return
        follower.left = True
        self._followers -= 1
        self._metrics.feed_followers.dec()
        self._everything.discard(follower)
        if follower.request_id is not None and (others := self._by_request.get(follower.request_id)) is not None:
            others.discard(follower)
            if not others:
                del self._by_request[follower.request_id]

    @property
    def end(self) -> int:
        """The last row that was looked at."""
        return self._tail.high

    @property
    def closed(self) -> bool:
        """The replica shuts down."""
        return self._closed


class Follower:
    """Who follows: first what it has missed, from the database, then what happens. An asynchronous context manager."""

    def __init__(
        self, feed: Feed, source: FeedSource, request_id: str | None, place: Place | None, *, answers: bool
    ) -> None:
        self.request_id = request_id
        self.left = False
        self._feed = feed
        self._source = source
        self._place = place
        self._answers = answers
        self._behind = tail_at(place or Place(0))
        self._since: Tail | None = None  # where it joined the others
        self._missed = request_id is not None or place is not None
        self._unread: deque[Told] = deque()
        self._news = asyncio.Event()
        self._lagging = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._feed.leave(self)

    def join(self) -> None:
        """It is told what happens from here on; what was before it reads itself."""
        self._since = self._feed.register(self)

    def wake(self) -> None:
        """Something has happened."""
        self._news.set()

    def add(self, told: Sequence[Told]) -> None:
        """News, unless it is behind by too many."""
        if len(self._unread) + len(told) > MOST_UNREAD:
            self._lagging = True
        else:
            self._unread.extend(told)
        self._news.set()

    @property
    def over(self) -> bool:
        """The replica shuts down, and there is nothing more to hear from it."""
        return self._feed.closed

    async def next(self, timeout_s: float) -> Sequence[Told]:
        """What is to be told now; nothing when there was none for so long, or it is `over`. LaggingError."""
        while self._missed:
            if told := await self._catch_up():
                return told
        if not self._unread and not self._lagging and not self.over:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        self._news.clear()
        if self._lagging:
            raise LaggingError(f"More than {MOST_UNREAD} events wait for this reader.")
        told, self._unread = list(self._unread), deque()
        return told

    async def _catch_up(self) -> Sequence[Told]:
        if self.request_id is not None and self._since is not None:
            return await self._read_missed(self.request_id, self._since)
        if self._since is None and self._feed.end - self._behind.high <= PAGE:
            self.join()
        before, since = self._behind, self._since
        up_to = self._feed.end if since is None else since.high
        look = await self._source.look(before.high, before.open, PAGE, up_to=up_to)
        self._behind, events = advance(before, look)
        more = look.behind(before.high) >= PAGE
        if since is None:
            if not more:
                self.join()
            return _told(events, before.place, self._behind.place)
        self._missed = more
        later = set(since.open)  # these are told when they are published
        events = [event for event in events if event.row_id not in later]
        return _told(events, before.place, self._behind.place if more else since.place)

    async def _read_missed(self, request_id: str, since: Tail) -> Sequence[Told]:
        place = self._place or Place(0)
        events = await self._source.missed(request_id, place, since.place, answers=self._answers)
        self._missed = False
        return _told(events, place, since.place)


def _told(events: Sequence[FeedEvent], before: Place, after: Place) -> list[Told]:
    """Each with where to resume: but for the last, that is where all of them were still to come."""
    return [Told(f"{(after if event is events[-1] else before).told()}:{event.row_id}", event) for event in events]
