"""From a message to its events: the main job, whatever the model."""

from __future__ import annotations

import json
from uuid import UUID

import aio_pika
import pytest

from service.app import App
from service.sandbox import Sandbox
from service.sandbox.schemas import CHAT, SEEDLESS, STILL
from tests.support.bus import Team, name_of

pytestmark = pytest.mark.asyncio
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_prompt_alone_becomes_a_video(app: App, team: Team, hub: Sandbox) -> None:
    await team.send({"request_id": "first", "input": {"prompt": "a lighthouse at dawn"}})
    end = await team.end_of("first")
    assert [name_of(event) for event in team.of("first")] == ["accepted", "submitted", "succeeded"]
    assert [event["sequence"] for event in team.of("first")] == ["0000000001", "0000000002", "0000000003"]
    assert end["data"]["outputs"][0]["url"].startswith(hub.url)
    assert UUID(end["id"]).version == 7


async def test_every_event_of_a_request_tells_when_it_was_received_alike(team: Team) -> None:
    await team.send({"request_id": "r", "input": {"prompt": "x"}})
    await team.end_of("r")
    assert len({event["data"]["received_at"] for event in team.events}) == 1


async def test_an_event_is_a_cloudevent_with_the_contracts_properties(app: App, team: Team) -> None:
    await team.send(
        {"request_id": "shape", "input": {"prompt": "x"}, "metadata": {"shot": 7}},
        correlation_id="corr-1",
        headers={"traceparent": TRACEPARENT},
    )
    end = await team.end_of("shape")
    message = next(m for m in team.messages if m.message_id == end["id"])
    assert message.routing_key == message.type == "generation.succeeded"
    assert message.content_type == "application/cloudevents+json"
    assert message.correlation_id == "corr-1"
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert end["specversion"] == "1.0"
    assert (end["source"], end["type"], end["subject"]) == ("drover", "drover.generation.succeeded.v1", "shape")
    assert end["traceparent"] == TRACEPARENT
    assert set(end["data"]) == {
        "request_id",
        "status",
        "model",
        "outputs",
        "error",
        "seed",
        "attempts",
        "received_at",
        "submitted_at",
        "finished_at",
        "metadata",
    }
    assert end["data"]["metadata"] == {"shot": 7}
    assert end["data"]["attempts"] == 1


async def test_a_chosen_seed_is_sent_to_the_hub_and_reported(app: App, team: Team, hub: Sandbox) -> None:
    await team.send({"request_id": "seeded", "input": {"prompt": "x"}})
    end = await team.end_of("seeded")
    [generation] = hub.ledger()["generations"]
    assert generation["parameters"]["seed"] == end["data"]["seed"]
    assert isinstance(end["data"]["seed"], int)


async def test_each_of_several_outputs_is_told_before_the_end(app: App, team: Team, hub: Sandbox) -> None:
    await team.send({"request_id": "four", "input": {"prompt": "x"}, "num_generations": 4})
    end = await team.end_of("four")
    assert [name_of(event) for event in team.of("four")] == ["accepted", "submitted", *["output"] * 4, "succeeded"]
    assert [output["index"] for output in end["data"]["outputs"]] == [0, 1, 2, 3]
    assert len({output["generation_id"] for output in end["data"]["outputs"]}) == 4
    assert end["data"]["status"] == "succeeded"
    assert all("seed" not in generation["parameters"] for generation in hub.ledger()["generations"])


async def test_a_generation_that_fails_at_the_hub_ends_as_failed_with_the_hubs_words(app: App, team: Team) -> None:
    await team.send({"request_id": "bad", "input": {"prompt": "this will [fail]"}})
    end = await team.end_of("bad")
    assert name_of(end) == "failed"
    assert end["data"]["error"]["code"] == "upstream_failed"
    assert "[fail]" in end["data"]["outputs"][0]["error"]["message"]


@pytest.mark.parametrize(
    ("model", "parameters", "media_type"),
    [
        (STILL, {"prompt": "a red door"}, "image"),
        (SEEDLESS, {"prompt": "it moves", "image_url": "https://example.com/a.png"}, "video"),
    ],
)
async def test_other_models_work_the_same_way_through_their_own_schema(
    app: App, team: Team, hub: Sandbox, model: str, parameters: dict[str, object], media_type: str
) -> None:
    await team.send({"request_id": "good", "model": model, "input": parameters})
    await team.send({"request_id": "mistyped", "model": model, "input": {**parameters, "prompt": 5}})
    end = await team.end_of("good")
    assert name_of(end) == "succeeded"
    assert end["data"]["outputs"][0]["media_type"] == media_type
    refused = await team.end_of("mistyped")
    assert refused["data"]["error"]["details"][0]["path"] == "/input/prompt"
    assert len(hub.ledger()["generations"]) == 1


async def test_a_model_that_the_hub_does_not_have_is_rejected_and_so_is_one_that_chats(app: App, team: Team) -> None:
    await team.send({"request_id": "none", "model": "no-such-model", "input": {"prompt": "x"}})
    await team.send({"request_id": "chat", "model": CHAT, "input": {"prompt": "x"}})
    for request_id in ("none", "chat"):
        end = await team.end_of(request_id)
        assert name_of(end) == "rejected"
        assert end["data"]["error"]["code"] == "unknown_model"


async def test_a_request_may_come_inside_a_cloudevent(app: App, team: Team) -> None:
    envelope = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "shop.clip.wanted",
        "tenant": "an extension attribute",
        "data": {"request_id": "wrapped", "input": {"prompt": "x"}},
    }
    await team.send(envelope, content_type="application/cloudevents+json")
    assert name_of(await team.end_of("wrapped")) == "succeeded"


async def test_the_message_id_stands_in_for_a_missing_request_id(app: App, team: Team) -> None:
    await team.send({"input": {"prompt": "x"}}, message_id="from-the-property")
    assert name_of(await team.end_of("from-the-property")) == "succeeded"


async def test_the_terminal_event_is_also_sent_to_reply_to(app: App, team: Team) -> None:
    await team.send({"request_id": "asked", "input": {"prompt": "x"}}, reply_to=team.reply_to)
    end = await team.end_of("asked")
    await team.wait_for(lambda heard: len(heard.replies) == 1)
    assert team.replies == [end]


async def test_a_reply_queue_that_is_gone_harms_nobody(app: App, team: Team) -> None:
    await team.send({"request_id": "gone", "input": {"prompt": "x"}}, reply_to="nobody-is-here")
    await team.send({"request_id": "next", "input": {"prompt": "x"}}, reply_to=team.reply_to)
    assert name_of(await team.end_of("gone")) == "succeeded"
    await team.wait_for(lambda heard: len(heard.replies) == 1)


async def test_terminal_events_that_nobody_binds_are_kept_in_the_unrouted_queue(app: App, amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()
        commands = await channel.get_exchange("generation.commands")
        body = json.dumps({"request_id": "unheard", "input": {"prompt": "x"}}).encode()
        await commands.publish(aio_pika.Message(body), "generation.request")
        queue = await channel.get_queue("generation.unrouted")
        async with queue.iterator(timeout=20) as messages:
            message = await anext(messages)
            await message.ack()
    assert json.loads(message.body)["subject"] == "unheard"
    assert message.type == "generation.succeeded"
