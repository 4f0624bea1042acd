"""Every parameter reaches the hub exactly as given, or is refused with its path before anything is paid for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.app import App
from service.sandbox import Sandbox
from tests.support.bus import Team, name_of

pytestmark = pytest.mark.asyncio

UNUSABLE = "with blanks"  # aiormq gives a message without an id a random one, so none is not enough

GOOD: list[tuple[str, Any]] = [
    ("prompt", 'naïve café 🦊 \u2028 “quotes” \\ " \t 日本語 \ud83d\ude80'),
    ("prompt", "x" * 20_000),
    ("prompt", ""),
    ("num_frames", 9),
    ("num_frames", 481),
    ("num_frames", 121),
    ("resolution", "portrait_16_9"),
    ("frames_per_second", 1),
    ("frames_per_second", 60),
    ("frames_per_second", 23.976),
    ("frames_per_second", 24.0),
    ("generate_audio", False),
    ("generate_audio", True),
    ("video_quality", "low"),
    ("video_quality", "maximum"),
    ("negative_prompt", "blurry"),
    ("negative_prompt", ""),
    ("seed", 0),
    ("seed", -1),
    ("seed", 2**63),
]
BAD: list[tuple[str, Any]] = [
    ("prompt", None),
    ("prompt", 5),
    ("prompt", ["x"]),
    ("prompt", "a NUL \x00 inside"),
    ("num_frames", 8),
    ("num_frames", 482),
    ("num_frames", "121"),
    ("num_frames", 12.5),
    ("num_frames", True),
    ("num_frames", 2**70),
    ("resolution", 720),
    ("frames_per_second", 0.5),
    ("frames_per_second", 60.001),
    ("frames_per_second", "24"),
    ("generate_audio", "true"),
    ("generate_audio", 1),
    ("video_quality", "ultra"),
    ("video_quality", None),
    ("negative_prompt", 0),
    ("seed", 1.5),
    ("seed", "7"),
    ("seed", 2**64),
    ("model", "x"),
    ("num_generations", 2),
    ("target_namespace", "x"),
    ("response_format", "url"),
]


async def test_every_good_value_reaches_the_hub_exactly_as_given(app: App, team: Team, hub: Sandbox) -> None:
    requests = [
        {"request_id": f"good-{index}", "input": {"prompt": f"case {index}", "seed": 1, name: value}}
        for index, (name, value) in enumerate(GOOD)
    ]
    for request in requests:
        await team.send(request)
    await team.wait_for(lambda heard: all(heard.ends(str(request["request_id"])) for request in requests))
    sent = sorted(json.dumps(request["input"], sort_keys=True) for request in requests)
    received = [json.dumps(generation["parameters"], sort_keys=True) for generation in hub.ledger()["generations"]]
    assert sorted(received) == sent
    assert not [request for request in requests if name_of(team.ends(str(request["request_id"]))[0]) == "rejected"]


async def test_every_bad_value_is_refused_with_its_path_and_nothing_is_submitted(
    app: App, team: Team, hub: Sandbox
) -> None:
    for index, (name, value) in enumerate(BAD):
        await team.send({"request_id": f"bad-{index}", "input": {"prompt": "fine", name: value}})
    await team.wait_for(lambda heard: all(heard.ends(f"bad-{index}") for index in range(len(BAD))))
    for index, (name, value) in enumerate(BAD):
        [end] = team.ends(f"bad-{index}")
        assert name_of(end) == "rejected", (name, value)
        error = end["data"]["error"]
        assert error["code"] == "invalid_input", (name, value)
        assert f"/input/{name}" in [detail["path"] for detail in error["details"]], (name, value)
        assert all(detail["message"] for detail in error["details"])
    assert hub.ledger()["generations"] == []
    assert hub.ledger()["calls"].get("post", 0) == 0


async def test_a_missing_prompt_is_named(app: App, team: Team) -> None:
    await team.send({"request_id": "empty", "input": {}})
    end = await team.end_of("empty")
    assert [detail["path"] for detail in end["data"]["error"]["details"]] == ["/input/prompt"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"input":{"prompt":"x","seed":NaN}}', "not JSON"),
        (b'{"input":{"prompt":"x","frames_per_second":1e400}}', "cannot be passed on"),
        (b'{"input":{"prompt":"\\ud800"}}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"input":{"prompt":"' + b"x" * 300_000 + b'"}}', "at most 262144"),
        (b'{"input":{"prompt":"x"},"priorty":3}', "not valid"),
        (b'{"input":{"prompt":"x"},"priority":10}', "not valid"),
        (b'{"input":{"prompt":"x"},"num_generations":5}', "not valid"),
        (b'{"input":{"prompt":"x"},"num_generations":true}', "not valid"),
        (b'{"input":{"prompt":"x"},"target_namespace":"somebody"}', "not valid"),
        (b'{"input":{"prompt":"x"},"deadline":"tomorrow"}', "not valid"),
        (b'{"input":"x"}', "not valid"),
        (b"{}", "not valid"),
    ],
)
async def test_a_message_that_is_not_a_request_is_answered_in_one_clear_sentence(
    app: App, team: Team, hub: Sandbox, body: bytes, says: str
) -> None:
    await team.send(body, message_id="odd")
    end = await team.end_of("odd")
    assert name_of(end) == "rejected"
    assert says in end["data"]["error"]["message"]
    assert hub.ledger()["calls"].get("post", 0) == 0


@pytest.mark.parametrize("given", [{}, {"request_id": "has blanks"}, {"request_id": 7}, {"request_id": "x" * 129}])
async def test_a_message_without_a_usable_id_is_quarantined_and_its_reply_queue_is_told(
    app: App, team: Team, given: dict[str, Any]
) -> None:
    await team.send({**given, "input": {"prompt": "x"}}, message_id=UNUSABLE, reply_to=team.reply_to)
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    assert name_of(team.replies[0]) == "rejected"
    assert team.replies[0]["data"]["error"]["code"] == "invalid_message"
    dead = await team.take("generation.dead")
    assert dead.headers["x-drover-reason"] == "invalid_message"
    assert json.loads(dead.body)["input"] == {"prompt": "x"}
    assert team.events == []


async def test_bad_messages_between_good_ones_stop_nobody(app: App, team: Team) -> None:
    for index in range(30):
        await team.send(b"\x00 rubbish", message_id=UNUSABLE)
        await team.send({"request_id": f"between-{index}", "input": {"prompt": "x"}})
    await team.wait_for(lambda heard: all(heard.ends(f"between-{index}") for index in range(30)))
    for _ in range(30):
        assert (await team.take("generation.dead")).body == b"\x00 rubbish"
