"""Whoever follows the outbox sees every published event once, however late it is committed and published."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.feed import LAST, MOST_TOLD, FeedEvent, Look, Place, Row, Tail, advance, read_place, tail_at


@dataclass
class Outbox:
    """Transactions that take row ids, end in any order, and are published in any order after that."""

    next_row: int = 1
    next_transaction: int = 100
    running: dict[int, list[int]] = field(default_factory=dict)
    stored: list[int] = field(default_factory=list)
    published: list[int] = field(default_factory=list)

    def begin(self, size: int) -> None:
        self.running[self.next_transaction] = list(range(self.next_row, self.next_row + size))
        self.next_transaction += 1
        self.next_row += size

    def end(self, choice: int, *, commit: bool) -> None:
        if self.running:
            rows = self.running.pop(sorted(self.running)[choice % len(self.running)])
            self.stored += rows if commit else []

    def publish(self, choice: int) -> None:
        if waiting := sorted({*self.stored} - {*self.published}):
            self.published.append(waiting[choice % len(waiting)])

    def look(self, tail: Tail, limit: int, up_to: int = LAST) -> Look:
        behind = [row for row in sorted(self.stored) if tail.high < row <= up_to][:limit]
        again = [row for row in tail.open if row in self.stored]
        oldest = min(self.running, default=self.next_transaction)
        rows = [Row(row, row in self.published, event(row)) for row in sorted([*behind, *again])]
        return Look(rows, oldest, self.next_transaction)


def event(row: int) -> FeedEvent:
    return FeedEvent(row, f"r-{row}", "generation.accepted", b"{}")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(1, 4)),
        st.tuples(st.just("commit"), st.integers(0, 9)),
        st.tuples(st.just("roll back"), st.integers(0, 9)),
        st.tuples(st.just("publish"), st.integers(0, 9)),
        st.tuples(st.just("look"), st.integers(1, 5)),
        st.tuples(st.just("resume"), st.integers(1, 5)),
    ),
    max_size=60,
)


def play(outbox: Outbox, step: str, number: int) -> None:
    match step:
        case "begin":
            outbox.begin(number)
        case "commit" | "roll back":
            outbox.end(number, commit=step == "commit")
        case "publish":
            outbox.publish(number)


def finish(outbox: Outbox) -> None:
    """Everything ends and is published."""
    while outbox.running:
        outbox.end(0, commit=True)
    while set(outbox.published) != set(outbox.stored):
        outbox.publish(0)


@given(STEPS)
def test_every_published_event_is_shown_exactly_once(steps: list[tuple[str, int]]) -> None:
    outbox, tail, shown = Outbox(), Tail(0), list[int]()

    def look(limit: int) -> None:
        nonlocal tail
        tail, events = advance(tail, outbox.look(tail, limit))
        shown.extend(item.row_id for item in events)

    for step, number in steps:
        if step in ("look", "resume"):
            look(number)
        else:
            play(outbox, step, number)
    finish(outbox)
    for _ in range(len(outbox.stored) + 2):
        look(5)
    assert sorted(shown) == sorted(outbox.stored)
    assert tail.open == [], "nothing stays open for ever"


@given(STEPS)
def test_a_reader_that_goes_on_from_the_place_it_was_told_misses_nothing(steps: list[tuple[str, int]]) -> None:
    outbox, tail, shown = Outbox(), Tail(0), set[int]()

    def look(limit: int) -> None:
        nonlocal tail
        tail, events = advance(tail, outbox.look(tail, limit))
        shown.update(item.row_id for item in events)

    for step, number in steps:
        if step == "look":
            look(number)
        elif step == "resume":
            place = read_place(tail.place.told())
            assert place is not None
            tail = tail_at(place)
        else:
            play(outbox, step, number)
    finish(outbox)
    for _ in range(len(outbox.stored) + 2):
        look(5)
    assert shown == set(outbox.stored)


def test_a_hole_stays_open_while_a_transaction_of_its_time_runs_and_no_longer() -> None:
    tail, _ = advance(Tail(0), Look([Row(2, True, event(2))], 100, 102))
    assert tail.holes == {1: 102}
    tail, _ = advance(tail, Look([], 101, 110))
    assert tail.open == [1]
    late, events = advance(tail, Look([Row(1, True, event(1))], 101, 110))
    assert ([item.row_id for item in events], late.open) == ([1], [])
    tail, _ = advance(tail, Look([], 102, 110))
    assert tail.open == [], "whoever could have filled it has ended"


def test_a_row_that_is_not_shown_is_passed_over_and_one_that_waits_is_shown_when_it_is_published() -> None:
    tail, events = advance(Tail(0), Look([Row(1, True, None), Row(2, False, None)], 100, 100))
    assert (events, tail.open) == ([], [2])
    tail, events = advance(tail, Look([Row(2, True, event(2))], 100, 100))
    assert ([item.row_id for item in events], tail.open) == ([2], [])


@pytest.mark.parametrize(("place", "told"), [(Place(7), "7"), (Place(7, (3, 7)), "7-3.7"), (Place(0), "0")])
def test_a_place_is_told_and_read_back_whatever_event_it_came_with(place: Place, told: str) -> None:
    assert place.told() == told
    assert read_place(told) == read_place(f"{told}:6") == place


def test_with_too_many_open_rows_the_place_is_before_the_first_of_them() -> None:
    assert Place(99, tuple(range(10, 10 + MOST_TOLD + 1))).told() == "9"


@given(st.text())
def test_no_text_breaks_the_reading_of_a_place(text: str) -> None:
    place = read_place(text)
    assert place is None or all(row <= place.high for row in place.open)


@pytest.mark.parametrize("text", ["", "x", "-1", "1-", "5-7", "5-3.3", "5-4.3", "99999999999999999999", "٣", "1 "])
def test_what_is_no_place_is_none(text: str) -> None:
    assert read_place(text) is None
