"""Following the outbox without missing what is committed late: where a reader stands, and what a look moves it to.

Row ids are given out before their transactions commit, and events are published a little after that, not always in
order. So a reader stands at a highest row and a few open ones below it: rows that are stored and not published yet, and
holes, of which nobody can see yet whether they will be filled. A hole is final once every transaction that ran when it
was first seen has ended (Postgres' documentation, section 9.27.9, snapshots); each of ours has its transaction id
before it takes a row id of an event that is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

MOST_TOLD = 16  # open rows that a place names; with more of them it stands before the first
MOST_OPEN = 2000  # more than the transactions under way ever hold: holes beyond were made by hand
PLACE = re.compile(r"(\d{1,19})(?:-(\d{1,19}(?:\.\d{1,19}){0,15}))?", re.ASCII)
LAST = 2**63 - 1
UNKNOWN = -1


class FeedEvent(Struct, frozen=True):
    """A published event as the feed shows it: `body` is the very document that went to the bus."""

    row_id: int
    request_id: str
    name: str
    body: bytes


class Row(Struct, frozen=True):
    """A row of the outbox; `event` None: it is not shown (a repeat, or a reply to one party alone)."""

    row_id: int
    published: bool
    event: FeedEvent | None


class Look(Struct, frozen=True):
    """What one statement saw: rows in their order, and of the transaction ids the oldest that was still running and the
    first that was not given out yet."""

    rows: Sequence[Row]
    oldest_running: int
    next_begun: int

    def behind(self, high: int) -> int:
        """How many rows it saw behind that one."""
        return sum(row.row_id > high for row in self.rows)


class Place(Struct, frozen=True):
    """Where a reader stands: all up to `high` was seen, but for `open`."""

    high: int
    open: tuple[int, ...] = ()

    def told(self) -> str:
        """As an id of the event stream; everything is at or behind it, nothing that was not seen before it."""
        if len(self.open) > MOST_TOLD:
            return str(self.open[0] - 1)
        return f"{self.high}-{'.'.join(map(str, self.open))}" if self.open else str(self.high)


class Tail(Struct, frozen=True):
    """A reader: `waiting` rows are stored and not published; `holes` are not there, each with the first transaction id
    that was not given out when it was first missed (UNKNOWN: it has not been missed yet)."""

    high: int
    waiting: frozenset[int] = frozenset()
    holes: Mapping[int, int] = {}

    @property
    def open(self) -> list[int]:
        """What is to be looked at again."""
        return sorted({*self.waiting, *self.holes})

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.high, tuple(self.open))


def read_place(text: str) -> Place | None:
    """The reverse of `Place.told`, whatever stands behind a colon; None for what is none."""
    found = PLACE.fullmatch(text.partition(":")[0])
    if found is None:
        return None
    high = int(found[1])
    rows = tuple(int(row) for row in found[2].split(".")) if found[2] else ()
    if high > LAST or any(row > high for row in rows) or list(rows) != sorted(set(rows)):
        return None
    return Place(high, rows)


def tail_at(place: Place) -> Tail:
    """A reader that goes on from a place: of what was open there nothing is known but that it is to be looked at."""
    return Tail(place.high, frozenset(), dict.fromkeys(place.open, UNKNOWN))


def advance(tail: Tail, look: Look) -> tuple[Tail, list[FeedEvent]]:
    """What a look at `tail.open`, and at what is behind `tail.high`, shows for the first time; and the reader after."""
    before = {*tail.waiting, *tail.holes}
    rows = [row for row in look.rows if row.row_id > tail.high or row.row_id in before]
    seen = {row.row_id for row in rows}
    high = max((tail.high, *seen))
    missed = [row for row in range(max(tail.high, high - MOST_OPEN) + 1, high) if row not in seen]
    holes = dict.fromkeys(missed, look.next_begun)
    for row, since in tail.holes.items():
        if row not in seen and (since == UNKNOWN or since > look.oldest_running):
            holes[row] = look.next_begun if since == UNKNOWN else since
    waiting = frozenset(row.row_id for row in rows if not row.published)
    events = [row.event for row in rows if row.published and row.event is not None]
    return Tail(high, waiting, holes), events
