"""The sandbox's blocking calls, its faults and ledger, and how it starts and stops."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest

from service.sandbox import Faults, RenderingUnavailableError, Sandbox, SandboxOptions, serve
from service.sandbox.commission import Commission
from service.sandbox.faults import FAULTS
from tests.conformance.caller import LTX, PATIENCE_S, STILL, Caller, calling

pytestmark = pytest.mark.asyncio

HEALTHY = FAULTS.dump_python(Faults())


def below(folder: Path) -> list[Path]:
    """Everything in a folder, which need not exist."""
    return sorted(folder.rglob("*"))


# -- blocking calls -----------------------------------------------------------------------------------------------


async def test_a_blocking_call_answers_with_urls_when_all_are_there(swift: Caller) -> None:
    body = {"model": LTX, "prompt": "x", "num_generations": 2}
    answer = await swift.call("POST", "/api/ai/videos/generate", body)
    assert (answer.status, answer.json["model"]) == (200, LTX)
    assert abs(answer.json["created"] - time.time()) < 5
    assert [list(video) for video in answer.json["videos"]] == [["url"], ["url"]]


async def test_a_blocking_call_puts_the_bytes_inline_on_demand(cinema: Caller) -> None:
    body = {"model": STILL, "prompt": "x", "image_size": {"width": 64, "height": 64}, "response_format": "b64_json"}
    answer = await cinema.call("POST", "/api/ai/images/generate", body)
    [image] = answer.json["images"]
    assert base64.b64decode(image["b64_json"]).startswith(b"\x89PNG")


async def test_a_blocking_call_reports_what_went_wrong(swift: Caller) -> None:
    answer = await swift.call("POST", "/api/ai/videos/generate", {"model": LTX, "prompt": "x", "num_frames": 1})
    assert answer.status == 422
    assert answer.json["error"]["message"].startswith("num_frames: ")


async def test_a_blocking_call_refuses_a_model_of_the_other_medium(swift: Caller) -> None:
    answer = await swift.call("POST", "/api/ai/videos/generate", {"model": STILL, "prompt": "x"})
    assert (answer.status, answer.json["status_message"]) == (400, "invalid_params")


# -- faults and ledger --------------------------------------------------------------------------------------------


async def test_a_refused_stream_answers_503_until_healed(slow: Caller) -> None:
    await slow.call("PUT", "/sandbox/faults", {"stream_refused": True})
    assert (await slow.call("GET", "/api/events")).status == 503
    await slow.call("PUT", "/sandbox/faults", {})
    async with slow.listen():
        pass


async def test_a_late_answer_belongs_to_a_generation_that_started_at_once(swift: Caller) -> None:
    swift.sandbox.faults.answer_delay_s = 0.2
    async with swift.listen() as listener:
        posting = asyncio.create_task(swift.post())
        event = await listener.event()
        assert not posting.done()
        assert await posting == [event["generation_id"]]


async def test_dropped_events_reach_nobody(swift: Caller) -> None:
    async with swift.listen() as listener:
        swift.sandbox.faults = Faults(events_dropped=1.0)
        await swift.end()
        swift.sandbox.faults = Faults()
        [heard] = await swift.post()
        assert (await listener.event())["generation_id"] == heard


async def test_a_post_status_refuses_without_accepting(slow: Caller) -> None:
    slow.sandbox.faults.post_status = 402
    answer = await slow.call("POST", "/api/ai/queue", {"model": LTX, "prompt": "x"})
    assert (answer.status, answer.json["status"]) == (402, "error")
    assert slow.sandbox.ledger()["generations"] == []


async def test_a_namespace_that_may_not_be_billed_is_refused(slow: Caller) -> None:
    slow.sandbox.faults.namespaces = ("studio",)
    await slow.post(target_namespace="studio")
    await slow.post()
    answer = await slow.call("POST", "/api/ai/queue", {"model": LTX, "prompt": "x", "target_namespace": "other"})
    assert answer.status == 403


@pytest.mark.parametrize("faults", [{"no_such": True}, {"events_dropped": 2}, {"post_status": 200}, [1]], ids=str)
async def test_faults_that_do_not_exist_are_refused_and_change_nothing(slow: Caller, faults: object) -> None:
    assert (await slow.call("PUT", "/sandbox/faults", faults)).status == 400
    assert (await slow.call("GET", "/sandbox/faults")).json == HEALTHY


async def test_a_set_of_faults_replaces_the_former_one_as_a_whole(slow: Caller) -> None:
    await slow.set(events_dropped=0.5, retry_after="3")
    await slow.set(events_dropped=0.25)
    assert (await slow.call("GET", "/sandbox/faults")).json == HEALTHY | {"events_dropped": 0.25}
    await slow.set()
    assert (await slow.call("GET", "/sandbox/faults")).json == HEALTHY


async def test_each_fault_is_explained_by_the_sandbox_itself(slow: Caller) -> None:
    schema = (await slow.call("GET", "/sandbox/faults/schema")).json
    assert list(schema["properties"]) == list(HEALTHY)
    assert [name for name, field in schema["properties"].items() if len(field.get("description", "")) < 20] == []


async def test_the_ledger_shows_calls_and_generations_without_a_key(slow: Caller) -> None:
    [generation_id] = await slow.post(seed=3, target_namespace="studio", num_generations=1)
    await slow.get(generation_id)
    ledger = (await slow.call("GET", "/sandbox/ledger", Authorization="")).json
    [entry] = ledger["generations"]
    assert abs(entry.pop("posted_at") - time.time()) < 5
    assert entry == {
        "generation_id": generation_id,
        "model": LTX,
        "prompt": "a heron",
        "status": "queued",
        "ended_at": None,
        "namespace": "studio",
        "parameters": {"prompt": "a heron", "seed": 3},
        "never_ending": False,
        "hidden_until": None,
        "forgotten": False,
    }
    assert {name: n for name, n in ledger["calls"].items() if n} == {"post": 1, "get": 1}
    assert (await slow.call("GET", "/sandbox/count")).json == {"posted": 1, "active": 1, "streams": 0}
    assert (await slow.call("GET", "/sandbox/nothing")).status == 404


# -- start and stop -----------------------------------------------------------------------------------------------


async def test_a_stop_is_quick_with_open_streams_blocked_calls_and_a_rendering_under_way() -> None:
    sandbox = Sandbox(SandboxOptions(delay_s=0))
    await sandbox.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(sandbox, session)
        async with caller.listen() as listener:
            blocked = asyncio.create_task(
                caller.call("POST", "/api/ai/videos/generate", {"model": LTX, "prompt": "x", "num_frames": 481})
            )
            await caller.until(lambda sandbox: sandbox.hub.results._directory is not None)
            directory = sandbox.hub.results._directory
            assert directory is not None
            before = time.monotonic()
            await sandbox.stop()
            assert time.monotonic() - before < 2
            assert await listener.frame() == ""
            with pytest.raises(aiohttp.ClientError):
                await blocked
    assert not directory.exists()  # nothing else waits for this loop


class EndlessRenderer:
    """Renders until it is told to give up, or for so long that a test has failed by then."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.gave_up = threading.Event()

    def __call__(self, _commission: Commission, path: Path, given_up: Callable[[], bool]) -> None:
        path.touch()
        self.started.set()
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not given_up():
            time.sleep(0.001)
        if given_up():
            self.gave_up.set()


async def test_a_cancel_stops_the_rendering_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling(SandboxOptions(delay_s=0)) as caller:
        renderer = EndlessRenderer()
        monkeypatch.setattr(caller.sandbox.hub._studio, "_render", renderer)
        [generation_id] = await caller.post()
        await asyncio.to_thread(renderer.started.wait, PATIENCE_S)
        await caller.call("DELETE", f"/api/ai/queue/{generation_id}")
        assert await asyncio.to_thread(renderer.gave_up.wait, PATIENCE_S / 2)


async def test_a_stop_leaves_no_rendering_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = EndlessRenderer()
    async with calling(SandboxOptions(delay_s=0)) as caller:
        monkeypatch.setattr(caller.sandbox.hub._studio, "_render", renderer)
        await caller.post()
        await asyncio.to_thread(renderer.started.wait, PATIENCE_S)
    assert renderer.gave_up.is_set()


async def test_a_rendering_that_breaks_fails_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_commission: Commission, path: Path, _given_up: Callable[[], bool]) -> None:
        path.touch()
        raise OSError("disk full")

    async with calling(SandboxOptions(delay_s=0)) as caller:
        monkeypatch.setattr(caller.sandbox.hub._studio, "_render", broken)
        generation = await caller.end()
        left = below(caller.sandbox.hub.results.path("x").parent)
    assert (generation["status"], generation["error_message"]) == ("failed", "Rendering failed: disk full")
    assert left == []


async def test_serve_runs_until_it_is_cancelled() -> None:
    ready: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(SandboxOptions(render=False), ready.set_result))
    url = (await ready).url
    async with aiohttp.ClientSession() as session:
        async with session.get(url + "/sandbox/count") as response:
            assert response.status == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url + "/sandbox/count")


async def test_a_terminated_program_takes_its_files_along(tmp_path: Path) -> None:
    program = """
import asyncio
from service.sandbox import SandboxOptions, serve
asyncio.run(serve(SandboxOptions(delay_s=0), lambda sandbox: print(sandbox.url, flush=True)))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    body = {"model": STILL, "prompt": "x", "image_size": {"width": 64, "height": 64}}
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sandbox-key"}) as session:
        await session.post(url + "/api/ai/images/generate", json=body)
    assert [path.suffix for path in below(tmp_path)] == ["", ".png"]
    process.terminate()
    assert await process.wait() == 0
    assert below(tmp_path) == []


async def test_rendering_without_its_packages_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("service.sandbox.rendering")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RenderingUnavailableError, match=r"'av'.*extra `sandbox`.*--no-render"):
        await Sandbox(SandboxOptions()).start()


async def test_without_rendering_the_sandbox_needs_neither_its_extra_nor_the_rest_of_the_service() -> None:
    program = """
import asyncio, sys
sys.modules |= dict.fromkeys(["av", "numpy", "PIL"])
from service.sandbox import Sandbox, SandboxOptions

async def main():
    async with Sandbox(SandboxOptions(render=False)):
        pass

asyncio.run(main())
foreign = [name for name in sys.modules if name.startswith("service.") and not name.startswith("service.sandbox")]
assert foreign == [], foreign
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0


@pytest.mark.parametrize("offset_s", [300.0, -300.0])
async def test_the_hubs_clock_can_be_off_in_every_answer(swift: Caller, offset_s: float) -> None:
    swift.sandbox.faults = Faults(clock_offset_s=offset_s)
    for path in ("/api/ai/models", "/api/ai/models/no-such-model", "/api/ai/queue"):
        async with swift.session.get(swift.sandbox.url + path, headers=swift.key) as response:
            told = parsedate_to_datetime(response.headers["Date"]).timestamp()
        assert abs(told - time.time() - offset_s) < 5, path


@pytest.mark.parametrize("field", ["delay_s", "jitter_s", "url_ttl_s", "keep_alive_s", "render_workers"])
async def test_an_option_that_could_not_work_is_refused_by_name(field: str) -> None:
    wrong: dict[str, int] = {field: -1}
    with pytest.raises(ValueError, match=field):
        SandboxOptions(**wrong)  # type: ignore[arg-type]  # the names are checked at run time
