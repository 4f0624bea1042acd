"""`/v1/generations`: requests sent, waited for, looked at and listed by who has no AMQP at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from service.app import App
from service.domain.messages import Message
from service.http import calls
from service.sandbox import Sandbox, SandboxOptions
from tests.support.api import Api
from tests.support.bus import Team, name_of
from tests.support.proxy import Cable
from tests.support.replica import KEY, environment, running

pytestmark = pytest.mark.asyncio
PROMPT = {"prompt": "a lighthouse at dawn"}


@asynccontextmanager
async def api_of(app: App) -> AsyncIterator[Api]:
    """A caller of a replica in this process."""
    async with Api(f"http://127.0.0.1:{app.http.port}") as api:
        yield api


@pytest_asyncio.fixture
async def app(amqp_url: str, database_url: str, hub: Sandbox) -> AsyncIterator[App]:
    async with running(environment(amqp_url, database_url, hub.url)) as replica:
        yield replica


@pytest_asyncio.fixture
async def api(app: App) -> AsyncIterator[Api]:
    async with api_of(app) as caller:
        yield caller


async def ended(api: Api, request_id: str) -> dict[str, Any]:
    """Waits for the end with a repeat of the request, which is not paid for twice."""
    answer = await api.post({"request_id": request_id, "input": PROMPT}, wait="60")
    assert answer.status == 200
    return dict(answer.document)


async def test_a_request_goes_on_the_bus_and_tells_where_to_look(api: Api) -> None:
    answer = await api.post({"request_id": "r-1", "input": PROMPT})
    assert (answer.status, answer.document) == (202, {"request_id": "r-1", "status": "pending"})
    assert answer.headers["Location"] == "/v1/generations/r-1"
    assert (await ended(api, "r-1"))["status"] == "succeeded"
    found = await api.get("/v1/generations/r-1")
    assert (found.status, found.document["outputs"][0]["status"]) == (200, "succeeded")
    assert found.document["source"] == "http"


async def test_with_wait_the_answer_is_the_end(api: Api, hub: Sandbox) -> None:
    answer = await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
    assert (answer.status, answer.document["status"]) == (200, "succeeded")
    again = await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
    assert (again.status, again.document) == (200, answer.document), "what has ended is answered at once"
    assert len(hub.ledger()["generations"]) == 1


async def test_a_wait_that_is_over_answers_how_it_stands(amqp_url: str, database_url: str) -> None:
    options = SandboxOptions(api_key=KEY, delay_s=600, render=False)
    async with (
        Sandbox(options) as slow,
        running(environment(amqp_url, database_url, slow.url)) as app,
        api_of(app) as api,
        Team(amqp_url) as team,
    ):
        waiting = asyncio.create_task(api.post({"request_id": "r-1", "input": PROMPT}, wait="2"))
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
        answer = await waiting
        assert (answer.status, answer.document["status"]) == (202, "submitted")


async def test_a_database_that_goes_while_somebody_waits_does_not_make_what_is_on_the_bus_fail(
    amqp_url: str, database_url: str
) -> None:
    async with (
        Sandbox(SandboxOptions(api_key=KEY, delay_s=600, render=False)) as slow,
        Cable(database_url) as database,
        running(environment(amqp_url, database.url, slow.url)) as app,
        api_of(app) as api,
        Team(amqp_url) as team,
    ):
        waiting = asyncio.create_task(api.post({"request_id": "r-1", "input": PROMPT}, wait="2"))
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
        await database.unplug()
        answer = await waiting
        assert (answer.status, answer.document) == (202, {"request_id": "r-1", "status": "pending"})
        await database.plug()


async def test_the_idempotency_key_names_the_request(api: Api) -> None:
    answer = await api.post({"input": PROMPT}, headers={"Idempotency-Key": "r-1"})
    assert (answer.status, answer.document["request_id"]) == (202, "r-1")
    quoted = await api.post({"input": PROMPT}, headers={"Idempotency-Key": '"r-1"'})
    assert quoted.document["request_id"] == "r-1"
    other = await api.post({"request_id": "r-2", "input": PROMPT}, headers={"Idempotency-Key": "r-1"})
    assert (other.status, other.document["code"]) == (422, "invalid_message")


async def test_the_same_id_with_other_content_is_a_conflict_and_goes_nowhere(api: Api, hub: Sandbox) -> None:
    await ended(api, "r-1")
    answer = await api.post({"request_id": "r-1", "input": {"prompt": "something else"}})
    assert (answer.status, answer.kind) == (409, "application/problem+json")
    assert answer.document["code"] == "idempotency_conflict"
    assert len(hub.ledger()["generations"]) == 1


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ({"request_id": "r", "input": {}}, "invalid_input", "/input/prompt"),
        ({"request_id": "r", "input": {**PROMPT, "num_frames": 5}}, "invalid_input", "/input/num_frames"),
        ({"request_id": "r", "input": PROMPT, "num_generations": 9}, "invalid_message", "/num_generations"),
        ({"request_id": "r", "input": PROMPT, "model": "no-such-model"}, "unknown_model", None),
        ({"input": PROMPT}, "invalid_message", None),
    ],
)
async def test_what_intake_would_reject_is_refused_at_once_with_the_same_words(
    api: Api, hub: Sandbox, body: dict[str, Any], code: str, path: str | None
) -> None:
    answer = await api.post(body)
    assert (answer.status, answer.kind, answer.document["code"]) == (422, "application/problem+json", code)
    assert path is None or path in {detail["path"] for detail in answer.document["details"]}
    assert hub.ledger()["generations"] == []


async def test_requests_are_listed_from_the_newest_on_in_pages(api: Api) -> None:
    for number in range(5):
        await ended(api, f"r-{number}")
    seen: list[str] = []
    params = {"limit": "2"}
    while True:
        page = (await api.get("/v1/generations", **params)).document
        seen += [item["request_id"] for item in page["generations"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ["r-4", "r-3", "r-2", "r-1", "r-0"]
    of_state = await api.get("/v1/generations", status="succeeded")
    assert len(of_state.document["generations"]) == 5
    assert (await api.get("/v1/generations", status="accepted")).document == {"generations": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "params", "told"),
    [
        ("/v1/generations", {"status": "done"}, "accepted, submitting"),
        ("/v1/generations", {"limit": "0"}, "from 1 to 200"),
        ("/v1/generations", {"cursor": "x"}, "cursor"),
        ("/v1/generations", {"state": "failed"}, "cursor, limit, status"),
        ("/v1/generations/a b", {}, "128 characters"),
        ("/v1/events", {"request_id": "a b"}, "128 characters"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_what_can(
    api: Api, path: str, params: dict[str, str], told: str
) -> None:
    answer = await api.get(path, **params)
    assert (answer.status, answer.kind) == (422, "application/problem+json")
    assert told in answer.document["detail"]


@pytest.mark.parametrize("wait", ["61", "-1", "x", "1e1", "nan"])
async def test_nobody_waits_for_more_than_a_minute(api: Api, wait: str) -> None:
    assert (await api.post({"request_id": "r", "input": PROMPT}, wait=wait)).status == 422


async def test_what_is_not_stored_is_not_found_and_paths_that_are_none_say_where_to_look(api: Api) -> None:
    unknown = await api.get("/v1/generations/r-9")
    assert (unknown.status, unknown.kind) == (404, "application/problem+json")
    nowhere = await api.get("/v1/nothing")
    assert (nowhere.status, nowhere.kind) == (404, "application/problem+json")
    wrong = await api.call("PUT", "/v1/generations")
    assert (wrong.status, wrong.kind, wrong.headers["Allow"]) == (405, "application/problem+json", "GET,HEAD,POST")


async def test_a_rejection_is_told_by_the_request_and_among_its_events(api: Api, app: App) -> None:
    bad = Message(b'{"request_id": "r-1", "input": {}}', "application/json")
    async with api.stream(request_id="r-1") as shown:
        await app.bus.publish_command("generation.request", bad)
        assert (await anext(shown)).name == "generation.rejected"
    found = await api.get("/v1/generations/r-1")
    assert (found.status, found.document["code"]) == (404, "invalid_input")
    assert found.document["details"][0]["path"] == "/input/prompt"
    async with api.stream(request_id="r-1") as shown:
        assert (await anext(shown)).name == "generation.rejected", "also to who asks later"
    ended = await api.post({"request_id": "r-1", "input": PROMPT}, wait="30")
    assert (ended.status, ended.document["status"]) == (200, "succeeded"), (
        "what was rejected before does not end a wait"
    )


async def test_a_body_must_be_json_of_a_bounded_size(api: Api) -> None:
    form = await api.call("POST", "/v1/generations", data={"input": "x"})
    assert (form.status, form.kind) == (415, "application/problem+json")
    huge = await api.call("POST", "/v1/generations", data=b" " * 300_000, headers={"Content-Type": "application/json"})
    assert (huge.status, huge.kind) == (413, "application/problem+json")


async def test_a_body_that_does_not_come_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BODY_TIMEOUT_S", 0.1)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    slow = await api.call("POST", "/v1/generations", data=never(), headers={"Content-Type": "application/json"})
    assert (slow.status, slow.kind) == (408, "application/problem+json")


async def test_a_cloudevent_is_taken_as_on_the_bus(api: Api) -> None:
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "test",
        "type": "request",
        "data": {"request_id": "r-1", "input": PROMPT},
    }
    answer = await api.call(
        "POST", "/v1/generations", json=event, headers={"Content-Type": "application/cloudevents+json"}
    )
    assert (answer.status, answer.document["request_id"]) == (202, "r-1")


async def test_without_broker_or_database_the_answer_is_503_and_says_which(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with (
        Cable(amqp_url) as broker,
        Cable(database_url) as database,
        running(environment(broker.url, database.url, hub.url)) as app,
        api_of(app) as api,
    ):
        await broker.unplug()
        sent = await api.post({"request_id": "r", "input": PROMPT})
        assert (sent.status, sent.headers["Retry-After"]) == (503, "1")
        assert "broker" in sent.document["detail"]
        await broker.plug()
        await database.unplug()
        asked = await api.get("/v1/generations/r")
        assert asked.status == 503
        assert "Postgres" in asked.document["detail"]
        await database.plug()


async def test_models_are_shown_with_their_schemas_and_those_that_make_nothing_to_see_are_not(
    api: Api,
) -> None:
    listed = (await api.get("/v1/models")).document["models"]
    assert {"ltx-2-3-quality-text-to-video", "flux-2-dev-text-to-image"} <= {item["model"] for item in listed}
    assert not any("llama" in item["model"] for item in listed)
    model = (await api.get("/v1/models/ltx-2-3-quality-text-to-video")).document
    assert model["input_schema"]["required"] == ["prompt"]
    assert (model["outputs"], model["pricing"]["method"]) == (["video"], "per_video_output_second")
    assert (await api.get("/v1/models/llama-3-3-70b-instruct")).status == 404


async def test_without_the_hub_models_are_not_known_and_a_request_is_taken_all_the_same(
    amqp_url: str, database_url: str
) -> None:
    nowhere = "http://127.0.0.1:9"
    async with running(environment(amqp_url, database_url, nowhere)) as app, api_of(app) as api:
        assert (await api.get("/v1/models")).status == 503
        assert (await api.post({"request_id": "r", "input": PROMPT})).status == 202


async def test_every_answer_forbids_to_frame_sniff_and_keep_it(api: Api) -> None:
    for path in ("/healthz", "/metrics", "/v1/generations", "/nowhere"):
        headers = (await api.call("HEAD", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.test"},
    ],
)
async def test_a_page_elsewhere_cannot_spend_money(api: Api, hub: Sandbox, headers: dict[str, str]) -> None:
    answer = await api.post({"request_id": "r", "input": PROMPT}, headers=headers)
    assert (answer.status, answer.kind) == (403, "application/problem+json")
    assert hub.ledger()["generations"] == []
