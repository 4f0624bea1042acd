"""Every image and video model of the sandbox through the whole way: made for real, or refused before it costs."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request

import av
import pytest
from PIL import Image

from service.app import App
from service.sandbox import Sandbox, SandboxOptions
from tests.support.bus import Team, name_of
from tests.support.models import TRIALS, Input
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio
MEDIA_TYPES = {"video": {"video/mp4"}, "image": {"image/png", "image/jpeg"}}


async def fetched(url: str) -> tuple[str, bytes]:
    """Media type and body of a result."""

    def call() -> tuple[str, bytes]:
        with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 - loopback
            return response.headers["Content-Type"], response.read()

    return await asyncio.to_thread(call)


def opened(makes: str, body: bytes) -> None:
    """Decodes the file's first picture, or fails."""
    if makes == "image":
        Image.open(io.BytesIO(body)).load()
    else:
        with av.open(io.BytesIO(body), "r") as container:
            next(container.decode(video=0))


async def test_every_model_makes_what_it_is_for(amqp_url: str, database_url: str) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0, render=True))
    await hub.start()
    try:
        async with running(environment(amqp_url, database_url, hub.url)), Team(amqp_url) as team:
            await team.send_many([{"request_id": t.model, "model": t.model, "input": t.small} for t in TRIALS])
            await team.wait_for(lambda heard: all(heard.ends(trial.model) for trial in TRIALS), 60)
            for trial in TRIALS:
                [end] = team.ends(trial.model)
                assert name_of(end) == "succeeded", (trial.model, end["data"]["error"])
                [output] = end["data"]["outputs"]
                assert output["media_type"] == trial.makes
                media_type, body = await fetched(output["url"])
                assert media_type in MEDIA_TYPES[trial.makes]
                opened(trial.makes, body)
                assert (end["data"]["seed"] is None) == (trial.seed is None), trial.model
    finally:
        await hub.stop()


async def test_whatever_a_model_takes_reaches_the_hub_as_it_was_written(app: App, team: Team, hub: Sandbox) -> None:
    requests = {
        f"{trial.model}-{number}": (trial.model, given)
        for trial in TRIALS
        for number, given in enumerate((trial.small, *trial.good))
    }
    await team.send_many([{"request_id": key, "model": m, "input": given} for key, (m, given) in requests.items()])
    await team.wait_for(lambda heard: all(heard.ends(key) for key in requests), 60)
    shown = {generation["generation_id"]: generation for generation in hub.ledger()["generations"]}
    for key, (model, given) in requests.items():
        [end] = team.ends(key)
        assert name_of(end) == "succeeded", (key, given, end["data"]["error"])
        generation = shown[end["data"]["outputs"][0]["generation_id"]]
        seed = end["data"]["seed"]
        sent = given if seed is None or "seed" in given else {**given, "seed": seed}
        assert generation["model"] == model
        assert json.dumps(generation["parameters"], sort_keys=True) == json.dumps(sent, sort_keys=True)
    assert len(shown) == len(requests)


async def test_whatever_a_model_does_not_take_is_refused_by_its_path_and_nothing_is_submitted(
    app: App, team: Team, hub: Sandbox
) -> None:
    wrong: dict[str, tuple[str, Input, list[str]]] = {
        f"{trial.model}-{number}": (trial.model, given, pointers)
        for trial in TRIALS
        for number, (given, pointers) in enumerate(trial.bad)
    }
    await team.send_many([{"request_id": key, "model": m, "input": given} for key, (m, given, _) in wrong.items()])
    await team.wait_for(lambda heard: all(heard.ends(key) for key in wrong), 60)
    for key, (_, given, pointers) in wrong.items():
        [end] = team.ends(key)
        assert name_of(end) == "rejected", (key, given)
        error = end["data"]["error"]
        assert error["code"] == "invalid_input"
        assert sorted({detail["path"] for detail in error["details"]}) == pointers, (key, given)
    assert hub.ledger()["generations"] == []
    assert hub.ledger()["calls"].get("post", 0) == 0
