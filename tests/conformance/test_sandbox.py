"""The sandbox's queue and models behave as the hub's API reference says, its gaps included."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from service.sandbox import Sandbox, SandboxOptions
from service.sandbox.models import OFFERS
from tests.conformance.caller import CHAT, LTX, SEEDLESS, STILL, Caller, calling

pytestmark = pytest.mark.asyncio

NOBODY = "00000000-0000-4000-8000-000000000000"


def assert_long_shape(error: dict[str, Any], kind: str) -> None:
    assert set(error) == {"error", "status", "status_message"}
    assert set(error["error"]) == {"type", "title", "detail"}
    assert (error["error"]["type"], error["status"], error["status_message"]) == (kind, "error", kind)


async def test_before_its_start_it_has_no_url_since_a_replica_that_is_given_none_takes_the_real_hub() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        _ = Sandbox(SandboxOptions(api_key="sandbox-key")).url


# -- enqueue ------------------------------------------------------------------------------------------------------


async def test_an_enqueue_answers_one_queued_uuid_per_generation(slow: Caller) -> None:
    answer = await slow.call("POST", "/api/ai/queue", {"model": LTX, "prompt": "x", "num_generations": 4})
    generations = answer.json["generations"]
    assert [set(generation) for generation in generations] == [{"generation_id", "status"}] * 4
    assert {generation["status"] for generation in generations} == {"queued"}
    assert len({UUID(generation["generation_id"]) for generation in generations}) == 4


async def test_answers_hold_no_blanks_since_shell_samples_look_for_the_bare_text(slow: Caller) -> None:
    [generation_id] = await slow.post()
    assert f'"generation_id":"{generation_id}"' in (await slow.call("GET", "/api/ai/queue")).text


@pytest.mark.parametrize("count", [0, 5, -1, 1.5, "2", True, None])
async def test_a_number_of_generations_outside_1_to_4_is_refused(slow: Caller, count: object) -> None:
    answer = await slow.call("POST", "/api/ai/queue", {"model": LTX, "prompt": "x", "num_generations": count})
    assert answer.status == 400
    assert_long_shape(answer.json, "invalid_params")
    assert slow.sandbox.ledger()["generations"] == []


async def test_an_unknown_model_is_refused(slow: Caller) -> None:
    answer = await slow.call("POST", "/api/ai/queue", {"model": "no-such-model", "prompt": "x"})
    assert answer.status == 404
    assert_long_shape(answer.json, "resource_not_found")


async def test_a_chat_model_is_refused_in_the_short_shape(slow: Caller) -> None:
    answer = await slow.call("POST", "/api/ai/queue", {"model": CHAT, "messages": []})
    assert answer.status == 400
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"message"}


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"{}", b'{"model":7}'])
async def test_a_body_that_names_no_model_is_refused(slow: Caller, body: bytes) -> None:
    answer = await slow.call("POST", "/api/ai/queue", body, Content_Type="application/json")
    assert answer.status in {400, 404}
    assert answer.json["status"] == "error"


async def test_a_body_that_is_not_declared_json_is_refused(slow: Caller) -> None:
    answer = await slow.call("POST", "/api/ai/queue", b'{"model":"x"}', Content_Type="text/plain")
    assert answer.status == 415
    assert_long_shape(answer.json, "unsupported_media_type")


async def test_json_with_a_charset_is_json(slow: Caller) -> None:
    body = b'{"model":"ltx-2-3-quality-text-to-video","prompt":"x"}'
    answer = await slow.call("POST", "/api/ai/queue", body, Content_Type="application/json; charset=utf-8")
    assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/api/ai/queue", "/api/ai/models", "/api/events", f"/api/ai/queue/{NOBODY}", "/api/x"]
)
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "sandbox-key"])
async def test_every_endpoint_asks_for_the_key(slow: Caller, path: str, authorization: str) -> None:
    answer = await slow.call("GET", path, Authorization=authorization)
    assert answer.status == 401
    assert_long_shape(answer.json, "unauthenticated")


# -- late judgement -----------------------------------------------------------------------------------------------

BAD_PARAMETERS = [
    {"num_frames": 8},
    {"num_frames": 482},
    {"num_frames": "121"},
    {"resolution": "cinemascope"},
    {"frames_per_second": 0.5},
    {"frames_per_second": 61},
    {"generate_audio": "yes"},
    {"video_quality": "best"},
    {"negative_prompt": 1},
    {"seed": "lucky"},
    {"prompt": 7},
    {"prompt": None},
]


@pytest.mark.parametrize("parameters", BAD_PARAMETERS, ids=str)
async def test_a_bad_parameter_is_accepted_and_fails_the_generation_later(
    swift: Caller, parameters: dict[str, object]
) -> None:
    generation = await swift.end(**parameters)
    [name] = parameters
    assert (generation["status"], generation["result_url"]) == ("failed", None)
    assert generation["error_message"].startswith(f"{name}: ")


async def test_a_missing_prompt_is_found_out_late(swift: Caller) -> None:
    answer = await swift.call("POST", "/api/ai/queue", {"model": LTX})
    [generation] = answer.json["generations"]
    await swift.ended(generation["generation_id"])
    assert '"prompt" is a required property' in (await swift.get(generation["generation_id"]))["error_message"]


async def test_all_faults_of_the_parameters_are_named_together(swift: Caller) -> None:
    generation = await swift.end(num_frames=1, seed="x")
    assert "num_frames: " in generation["error_message"]
    assert "seed: " in generation["error_message"]


async def test_bad_parameters_stay_unjudged_until_the_delay_is_over(slow: Caller) -> None:
    [generation_id] = await slow.post(num_frames=1)
    assert (await slow.get(generation_id))["status"] == "queued"


async def test_a_prompt_with_the_magic_word_fails_on_demand(swift: Caller) -> None:
    generation = await swift.end(prompt="a heron [fail]")
    assert (generation["status"], generation["media_type"]) == ("failed", "video")
    assert "[fail]" in generation["error_message"]


UNION_SIZES = [
    ("square", "succeeded"),
    ({"width": 64, "height": 128}, "succeeded"),
    ("wide", "failed"),
    ({"width": 64}, "failed"),
    (["square"], "failed"),
]


@pytest.mark.parametrize(("size", "end"), UNION_SIZES, ids=str)
async def test_the_image_model_takes_a_size_as_a_preset_or_as_numbers(swift: Caller, size: object, end: str) -> None:
    generation = await swift.end(model=STILL, image_size=size)
    assert (generation["status"], generation["media_type"]) == (end, "image")


@pytest.mark.parametrize(("url", "end"), [("https://example.com/a.png", "succeeded"), ("a.png", "failed")])
async def test_the_model_without_a_seed_wants_the_uri_of_an_image(swift: Caller, url: str, end: str) -> None:
    assert (await swift.end(model=SEEDLESS, image_url=url))["status"] == end


# -- get and list -------------------------------------------------------------------------------------------------


async def test_a_generation_echoes_every_parameter_beside_the_hubs_own_fields(swift: Caller) -> None:
    before = int(time.time())
    parameters = {"prompt": "ü", "seed": 2**53 + 1, "frames_per_second": 23.976, "own": {"deep": [1, None]}}
    generation = await swift.end(**parameters, target_namespace="studio", num_generations=1)
    assert {name: generation.pop(name) for name in parameters} == parameters
    url = generation.pop("result_url")
    assert url.startswith(f"{swift.sandbox.url}/results/{generation.pop('generation_id')}.mp4?expires=")
    times = [generation.pop(name) for name in ("enqueued_at", "started_at", "completed_at")]
    assert before <= times[0] <= times[1] <= times[2] <= time.time()
    assert generation == {
        "model_name": LTX,
        "media_type": "video",
        "status": "succeeded",
        "error_message": None,
    }


async def test_a_generation_is_queued_then_processing() -> None:
    async with calling(SandboxOptions(delay_s=600, render=False)) as caller:
        [generation_id] = await caller.post()
        queued = await caller.get(generation_id)
        caller.sandbox.hub.ledger.generations[generation_id].started_at = time.time()
        processing = await caller.get(generation_id)
    assert (queued["status"], queued["started_at"], queued["completed_at"]) == ("queued", None, None)
    assert processing["status"] == "processing"
    assert isinstance(processing["started_at"], int)


async def test_a_list_holds_only_active_generations_unless_a_status_is_asked_for(slow: Caller) -> None:
    active, cancelled = await slow.post(num_generations=2)
    await slow.call("DELETE", f"/api/ai/queue/{cancelled}")
    listed = (await slow.call("GET", "/api/ai/queue")).json
    assert (listed["count"], [g["generation_id"] for g in listed["generations"]]) == (1, [active])
    ended = (await slow.call("GET", "/api/ai/queue?status=cancelled")).json
    assert [g["generation_id"] for g in ended["generations"]] == [cancelled]
    assert (await slow.call("GET", "/api/ai/queue?status=succeeded")).json == {"count": 0, "generations": []}


FILTERS = [
    ("status=queued", 3),
    ("status=processing", 0),
    (f"model={LTX}", 2),
    (f"model={STILL}", 1),
    ("namespace=studio", 1),
    ("namespace=sandbox", 2),
    ("media_type=image", 1),
    ("media_type=video", 2),
    (f"model={LTX}&namespace=studio", 1),
    (f"model={STILL}&namespace=studio", 0),
    ("repo=none", 0),
    ("folder=none", 0),
]


@pytest.mark.parametrize(("query", "found"), FILTERS)
async def test_list_filters_narrow_together(slow: Caller, query: str, found: int) -> None:
    await slow.post()
    await slow.post(target_namespace="studio")
    await slow.post(model=STILL)
    listed = (await slow.call("GET", f"/api/ai/queue?{query}")).json
    assert (listed["count"], len(listed["generations"])) == (found, found)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_generation_is_not_found(slow: Caller, method: str) -> None:
    answer = await slow.call(method, f"/api/ai/queue/{NOBODY}")
    assert answer.status == 404
    assert_long_shape(answer.json, "resource_not_found")


async def test_an_unknown_path_is_not_found(slow: Caller) -> None:
    answer = await slow.call("GET", "/api/ai/nothing")
    assert answer.status == 404
    assert_long_shape(answer.json, "resource_not_found")


async def test_a_cancel_ends_an_active_generation(slow: Caller) -> None:
    [generation_id] = await slow.post()
    answer = await slow.call("DELETE", f"/api/ai/queue/{generation_id}")
    assert answer.json == {"status": "success", "generation_id": generation_id}
    generation = await slow.get(generation_id)
    assert (generation["status"], generation["result_url"], generation["error_message"]) == ("cancelled", None, None)


async def test_a_cancel_changes_nothing_about_an_ended_generation(swift: Caller) -> None:
    generation = await swift.end(prompt="[fail]")
    answer = await swift.call("DELETE", f"/api/ai/queue/{generation['generation_id']}")
    assert answer.status == 200
    assert await swift.get(generation["generation_id"]) == generation


# -- models -------------------------------------------------------------------------------------------------------


async def test_the_models_form_a_list_with_schema_pricing_and_capabilities(slow: Caller) -> None:
    listed = (await slow.call("GET", "/api/ai/models")).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [LTX, STILL, SEEDLESS, CHAT, *(offer.id for offer in OFFERS)]
    for model in listed["data"]:
        assert model["request_schema"] == model["json_request_schema"]
        assert set(model["capabilities"]) == {"input", "output"}
        assert model["pricing"]["method"] in {"per_video_output_second", "per_image", "time", "token"}
        assert (await slow.call("GET", f"/api/ai/models/{model['id']}")).json == model


async def test_models_are_found_by_words_of_their_name(slow: Caller) -> None:
    found = (await slow.call("GET", "/api/ai/models/search?search=KLING")).json
    assert [model["id"] for model in found["data"]] == [SEEDLESS]
    assert (await slow.call("GET", "/api/ai/models/search?search=nothing")).json["data"] == []


async def test_an_unknown_model_is_not_found_in_the_short_shape(slow: Caller) -> None:
    answer = await slow.call("GET", "/api/ai/models/no-such-model")
    assert (answer.status, answer.json) == (404, {"error": {"message": "Model not found"}})


async def test_the_resolution_is_a_plain_string_as_on_the_page(slow: Caller) -> None:
    schema = (await slow.call("GET", f"/api/ai/models/{LTX}")).json["request_schema"]
    assert schema["properties"]["resolution"]["default"] == "landscape_16_9"
    assert "enum" not in schema["properties"]["resolution"]
    assert schema["required"] == ["prompt"]
    assert schema["basic"][0] == "prompt"
    assert [field["x-order"] for field in schema["properties"].values()] == list(range(8))
