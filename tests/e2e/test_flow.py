"""From a message to its events: the main job."""

from __future__ import annotations

from uuid import UUID

import pytest

from service.app import App
from service.sandbox import Sandbox
from tests.support.bus import Team, name_of

pytestmark = pytest.mark.asyncio


async def test_a_prompt_alone_becomes_a_video(app: App, team: Team, hub: Sandbox) -> None:
    await team.send({"request_id": "first", "input": {"prompt": "a lighthouse at dawn"}})
    end = await team.end_of("first")
    assert [name_of(event) for event in team.of("first")] == ["accepted", "submitted", "succeeded"]
    assert [event["sequence"] for event in team.of("first")] == ["0000000001", "0000000002", "0000000003"]
    assert end["data"]["outputs"][0]["url"].startswith(hub.url)
    assert UUID(end["id"]).version == 7
