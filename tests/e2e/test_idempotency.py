"""The same request again: paid for once, answered every time."""

from __future__ import annotations

import asyncio

import pytest

from service.app import App
from service.sandbox import Sandbox
from tests.support.bus import Team, name_of

pytestmark = pytest.mark.asyncio
REQUEST = {"request_id": "same", "input": {"prompt": "x", "frames_per_second": 24}}


async def test_a_repeat_is_not_submitted_again_whatever_else_differs(app: App, team: Team, hub: Sandbox) -> None:
    await team.send(REQUEST)
    await team.send({**REQUEST, "priority": 9, "metadata": {"a": 1}, "num_generations": 1})
    await team.send({**REQUEST, "input": {"frames_per_second": 24.0, "prompt": "x"}}, correlation_id="other")
    await team.send({**REQUEST, "priority": "rubbish"})
    await team.end_of("same")
    await team.send({"request_id": "after", "input": {"prompt": "x"}})
    await team.end_of("after")
    assert len(hub.ledger()["generations"]) == 2
    assert {name_of(event) for event in team.of("same")} == {"accepted", "submitted", "succeeded"}
    assert team.ends("same")[0]["data"]["metadata"] is None


async def test_a_repeat_after_the_end_is_answered_with_the_same_event(app: App, team: Team, hub: Sandbox) -> None:
    await team.send(REQUEST)
    end = await team.end_of("same")
    await team.send(REQUEST, reply_to=team.reply_to, correlation_id="again")
    await team.wait_for(lambda heard: len(heard.ends("same")) == 2 and len(heard.replies) == 1)
    assert team.ends("same") == [end, end]
    assert team.replies == [end]
    assert team.messages[-1].correlation_id == "again"
    assert len(hub.ledger()["generations"]) == 1


async def test_a_repeat_before_the_end_moves_the_reply(app: App, team: Team, hub: Sandbox) -> None:
    hub.faults.answer_delay_s = 0.5
    await team.send(REQUEST, reply_to="nobody-is-here")
    await team.wait_for(lambda heard: bool(heard.of("same")))
    await team.send(REQUEST, reply_to=team.reply_to)
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    assert name_of(team.replies[0]) == "succeeded"


@pytest.mark.parametrize("other", [{"prompt": "y"}, {"prompt": 5}, {}])
async def test_other_content_under_a_known_id_is_a_conflict_that_touches_nothing(
    app: App, team: Team, hub: Sandbox, other: dict[str, object]
) -> None:
    await team.send(REQUEST)
    await team.end_of("same")
    await team.send({**REQUEST, "input": other}, reply_to=team.reply_to)
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    assert team.replies[0]["data"]["error"]["code"] == "idempotency_conflict"
    dead = await team.take("generation.dead")
    assert dead.headers["x-drover-reason"] == "idempotency_conflict"
    assert [name_of(event) for event in team.of("same")] == ["accepted", "submitted", "succeeded"]
    assert len(hub.ledger()["generations"]) == 1


async def test_a_rejected_message_reserves_nothing(app: App, team: Team) -> None:
    await team.send({"request_id": "same", "input": {"prompt": 5}})
    assert name_of(await team.end_of("same")) == "rejected"
    await team.send(REQUEST)
    await team.wait_for(lambda heard: len(heard.ends("same")) == 2)
    assert name_of(team.ends("same")[1]) == "succeeded"


async def test_the_same_rejection_has_the_same_id_and_another_one_another(app: App, team: Team) -> None:
    for _ in range(2):
        await team.send({"request_id": "bad", "input": {"prompt": 5}}, message_id="m")
    await team.send({"request_id": "bad", "input": {"prompt": 6}}, message_id="m")
    await team.wait_for(lambda heard: len(heard.ends("bad")) == 3)
    first, second, third = (event["id"] for event in team.ends("bad"))
    assert first == second != third


async def test_a_hundred_copies_at_once_are_submitted_once(app: App, team: Team, hub: Sandbox) -> None:
    await asyncio.gather(*(team.send(REQUEST) for _ in range(100)))
    await team.end_of("same")
    assert len(hub.ledger()["generations"]) == 1
    assert [name_of(event) for event in team.of("same")][:3] == ["accepted", "submitted", "succeeded"]


async def test_one_of_our_own_queues_is_no_reply_address(app: App, team: Team) -> None:
    await team.send(REQUEST, reply_to="generation.requests")
    end = await team.end_of("same")
    assert name_of(end) == "rejected"
    assert end["data"]["error"]["details"][0]["path"] == "property reply_to"
