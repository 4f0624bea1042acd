"""Odd messages: a short form of the fuzz run, and what its judgement rests on."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.answers import Answers
from tests.chaos.fuzz import Report, fuzz, judge
from tests.chaos.oddities import KINDS, oddity
from tests.support.servers import Servers


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_each_of_many_odd_messages_is_answered_or_quarantined_and_the_service_stays_well(
    servers: Servers, amqp_url: str, database_url: str
) -> None:
    report = await fuzz(servers, amqp_url, database_url, messages=2000, seed=3)
    assert report.faults == [], "\n".join(report.lines())
    assert sum(report.outcomes.values()) == 2000
    assert {outcome.split(",")[0] for _, outcome in report.outcomes} == {
        *("dead", "ended", "rejected", "repeated"),
        *("applied", "kept"),
    }
    assert {kind for kind, _ in report.outcomes} == set(KINDS)


def test_a_seed_and_a_number_make_the_same_message_again_and_others_make_another() -> None:
    messages = [oddity(1, number) for number in range(300)]
    assert [oddity(1, number) for number in range(300)] == messages
    assert len({repr(message.properties) + repr(message.body) for message in messages}) == 300
    assert oddity(2, 0).body != messages[0].body


def test_a_message_that_nothing_came_of_is_a_fault() -> None:
    sent, report = oddity(1, 0), Report()
    assert Answers().of(sent, sent.tracer) is None
    judge([sent], Answers(), set(), report)
    assert [fault.split(":")[0] for fault in report.faults] == ["lost"]


def test_two_ends_none_at_all_a_generation_that_nobody_was_told_of_and_a_redelivery_are_faults() -> None:
    answers = Answers(accepted={"a": "a", "b": "b"}, ends={"a": {"1", "2"}}, dead={"c": "internal"})
    report = Report(redelivered=1, told=Counter())
    judge([], answers, {"g"}, report)
    assert [fault.split(":")[0] for fault in report.faults] == [
        "broke the service and went to quarantine",
        "ended more than once",
        "accepted and never ended",
        "bought and never told",
        "1 redelivered, 0 connections lost",
    ]
