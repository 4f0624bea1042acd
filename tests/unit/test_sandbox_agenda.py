"""The sandbox's agenda calls what falls due, in order of time."""

from __future__ import annotations

import asyncio

import pytest

from service.sandbox.agenda import Agenda

pytestmark = pytest.mark.asyncio


async def test_items_fall_due_in_order_of_time_and_then_of_arrival() -> None:
    due: asyncio.Queue[str] = asyncio.Queue()
    agenda = Agenda(due.put_nowait)
    for delay_s, item in ((0.04, "last"), (0.02, "second"), (0.02, "third"), (0, "first")):
        agenda.add(delay_s, item)
    async with asyncio.timeout(5):
        assert [await due.get() for _ in range(4)] == ["first", "second", "third", "last"]


async def test_an_item_is_not_held_up_by_a_later_one() -> None:
    due: asyncio.Queue[str] = asyncio.Queue()
    agenda = Agenda(due.put_nowait)
    agenda.add(600, "later")
    agenda.add(0, "now")
    async with asyncio.timeout(5):
        assert await due.get() == "now"
    agenda.close()


async def test_a_closed_agenda_calls_nothing_more() -> None:
    due: asyncio.Queue[str] = asyncio.Queue()
    closed, witness = Agenda(due.put_nowait), Agenda(due.put_nowait)
    closed.add(0, "before")
    closed.close()
    closed.add(0, "after")
    witness.add(0.01, "witness")
    async with asyncio.timeout(5):
        assert await due.get() == "witness"
