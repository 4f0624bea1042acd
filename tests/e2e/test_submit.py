"""`drover submit` with a model's own parameters, and with many requests at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.app import App
from service.sandbox import Faults, Sandbox, SandboxOptions
from service.sandbox.schemas import STILL
from tests.support.broker import close_connections
from tests.support.command import drover, one_sentence, start
from tests.support.replica import KEY, environment, running
from tests.support.servers import Servers
from tests.support.terminal import at_a_terminal

pytestmark = pytest.mark.asyncio


def file_of(folder: Path, documents: Sequence[object]) -> str:
    """A JSON Lines file."""
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return str(path)


def prompts(count: int) -> list[object]:
    """Lines of parameters alone."""
    return [{"prompt": f"shot {number}", "num_frames": 9, "resolution": "square"} for number in range(count)]


async def submit(variables: dict[str, str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """`drover submit ... --json`: the exit code, its lines, what was said on stderr."""
    code, out, err = await drover("submit", *arguments, "--json", **variables)
    return code, [json.loads(line) for line in out.splitlines()], err


async def bought(hub: Sandbox, count: int) -> list[dict[str, Any]]:
    """The generations of the hub, as soon as there are so many; the sandbox has no signal for a POST."""
    async with asyncio.timeout(20):
        while len(hub.ledger()["generations"]) < count:
            await asyncio.sleep(0.02)
    found: list[dict[str, Any]] = hub.ledger()["generations"]
    return found


# -- parameters as options --------------------------------------------------------------------------------------------


async def test_options_come_from_the_schema_that_the_hub_has_for_the_model(
    app: App, hub: Sandbox, variables: dict[str, str]
) -> None:
    code, _, err = await submit(
        variables,
        *("--model", STILL, "--prompt", "a cat", "--num-inference-steps", "5", "--guidance-scale", "2"),
        *("--image-size", '{"width": 64, "height": 64}', "--reference-images", '["http://x/y"]', "--seed=7"),
    )
    assert (code, err) == (0, "")
    [generation] = await bought(hub, 1)
    assert generation["parameters"] == {
        "prompt": "a cat",
        "num_inference_steps": 5,
        "guidance_scale": 2,
        "image_size": {"width": 64, "height": 64},
        "reference_images": ["http://x/y"],
        "seed": 7,
    }


async def test_a_model_that_the_hub_does_not_have_is_told_before_anything_is_sent(
    hub: Sandbox, variables: dict[str, str]
) -> None:
    for model, says in (
        ("ltx-2-3-text-to-video", "The hub has no model 'ltx-2-3-text-to-video'. Did you mean ltx-2-3-quality-text-to"),
        ("llama-3-3-70b-instruct", "neither images nor videos"),
    ):
        code, lines, err = await submit(variables, "--model", model, "--prompt", "x")
        assert (code, lines, one_sentence(err), says in err) == (2, [], True, True), err


async def test_help_lists_the_parameters_of_the_named_model(hub: Sandbox, variables: dict[str, str]) -> None:
    code, out, _ = await drover("submit", "--model", STILL, "--help", **variables)
    assert (code, "--num-inference-steps" in out, "from: the hub" in out) == (0, True, True)
    hub.faults = Faults(models_status=503)
    code, out, _ = await drover("submit", "--options", **variables)
    assert (code, "--num-frames" in out, "built in, since The hub's answer" in out) == (0, True, True)
    code, _, err = await drover("submit", "--model", STILL, "--options", **variables)
    assert (code, "are not known here" in err, one_sentence(err)) == (2, True, True)


async def test_standard_input_is_overridden_by_what_is_typed(app: App, hub: Sandbox, variables: dict[str, str]) -> None:
    process = await start(
        *("submit", "--input", "-", "--num-frames", "17", "--wait"), variables=variables, stdin=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(b'{"prompt": "typed", "num_frames": 9, "seed": 1}')
    assert (process.returncode, "generation.succeeded" in out.decode()) == (0, True)
    assert hub.ledger()["generations"][0]["parameters"] == {"prompt": "typed", "num_frames": 17, "seed": 1}


# -- many -------------------------------------------------------------------------------------------------------------


async def test_many_are_followed_and_downloaded_and_a_second_run_pays_for_nothing(
    amqp_url: str, database_url: str, tmp_path: Path
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=True))
    arguments = ("--from-file", file_of(tmp_path, prompts(5)), "--seed", "3", "--download", str(tmp_path / "videos"))
    async with hub, running(environment(amqp_url, database_url, hub.url)) as replica:
        variables = environment(amqp_url, database_url, hub.url)
        code, first, err = await submit(variables, *arguments)
        assert (code, err) == (0, "")
        files = {file: Path(file).stat().st_mtime_ns for line in first for file in line["files"]}
        code, second, err = await submit(variables, *arguments)
        assert (code, err, replica.holder != "") == (0, "", True)
        calls = hub.ledger()["calls"]
    assert {line["status"] for line in first} == {"succeeded"}
    assert len(files) == len({line["request_id"] for line in first}) == 5
    assert all(Path(file).read_bytes()[4:8] == b"ftyp" for file in files)
    by_id = {line["request_id"]: line for line in first}
    assert {line["request_id"]: line for line in second} == by_id
    assert {file: Path(file).stat().st_mtime_ns for file in files} == files
    assert len(hub.ledger()["generations"]) == 5, calls
    assert not list((tmp_path / "videos").glob("*.part"))


async def test_a_run_that_was_killed_is_taken_up_by_the_next_and_none_is_paid_for_twice(
    app: App, hub: Sandbox, variables: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--from-file", file_of(tmp_path, prompts(40)), "--in-flight", "4", "--wait")
    process = await start("submit", *arguments, variables=variables)
    await bought(hub, 6)
    process.kill()
    await process.communicate()
    code, lines, err = await submit(variables, *arguments)
    assert (code, err, len(lines)) == (0, "", 40)
    prompts_bought = [generation["parameters"]["prompt"] for generation in hub.ledger()["generations"]]
    assert sorted(prompts_bought) == sorted(f"shot {number}" for number in range(40))


async def test_one_that_fails_makes_it_1_and_the_others_are_done(
    app: App, variables: dict[str, str], tmp_path: Path
) -> None:
    documents = [{"request_id": "good", "input": {"prompt": "a"}}, {"request_id": "bad", "input": {"prompt": "[fail]"}}]
    code, lines, err = await submit(variables, "--from-file", file_of(tmp_path, documents), "--wait")
    found = {line["request_id"]: line for line in lines}
    assert (code, err, found["good"]["status"], found["bad"]["status"]) == (1, "", "succeeded", "failed")
    assert found["bad"]["error"]["code"] == "upstream_failed"
    code, out, err = await drover("submit", "--from-file", file_of(tmp_path, documents), "--wait", **variables)
    assert (code, err) == (1, "2 sent, 0 accepted, 0 submitted, 1 succeeded, 1 not succeeded\n")
    assert [line.split()[:2] for line in sorted(out.splitlines())] == [["bad", "failed"], ["good", "succeeded"]]


async def test_no_more_are_in_flight_than_asked_for(
    app: App, hub: Sandbox, variables: dict[str, str], tmp_path: Path
) -> None:
    hub.faults = Faults(never_ending=1)
    arguments = ("--from-file", file_of(tmp_path, prompts(5)), "--in-flight", "2", "--wait", "--timeout", "3")
    running_batch = asyncio.create_task(submit(variables, *arguments))
    first = await bought(hub, 2)
    hub.cancel(first[0]["generation_id"])  # without an event: the sweep finds it, or the wait for it ends
    assert len(await bought(hub, 3)) <= 4
    code, lines, _ = await running_batch
    assert (code, len(lines)) == (1, 5)
    assert {line["status"] for line in lines} <= {"not ended in time", "cancelled"}


async def test_without_wait_each_is_confirmed_and_told(
    app: App, hub: Sandbox, variables: dict[str, str], tmp_path: Path
) -> None:
    code, lines, err = await submit(variables, "--from-file", file_of(tmp_path, prompts(20)))
    assert (code, err, {line["status"] for line in lines}) == (0, "", {"sent"})
    assert len({line["request_id"] for line in lines}) == 20
    assert len(await bought(hub, 20)) == 20


async def test_a_terminal_has_one_display_for_all(app: App, variables: dict[str, str], tmp_path: Path) -> None:
    code, screen = await at_a_terminal(
        "submit", "--from-file", file_of(tmp_path, prompts(3)), "--wait", **variables, COLUMNS="160"
    )
    assert code == 0, screen
    assert "3/3" in screen
    assert "sent 3  accepted 3  submitted 3  succeeded 3  not succeeded 0" in screen


async def test_a_bus_that_is_lost_on_the_way_says_that_a_second_run_is_safe(
    app: App, servers: Servers, hub: Sandbox, amqp_url: str, variables: dict[str, str], tmp_path: Path
) -> None:
    hub.faults = Faults(never_ending=1)
    sent = asyncio.create_task(submit(variables, "--from-file", file_of(tmp_path, prompts(3)), "--wait"))
    await bought(hub, 3)
    await close_connections(servers, amqp_url, "drover producer")
    code, lines, err = await sent
    assert (code, lines, one_sentence(err), "nothing is paid for twice" in err) == (1, [], True, True), err


async def test_without_a_service_many_are_not_swallowed(variables: dict[str, str], tmp_path: Path) -> None:
    code, lines, err = await submit(variables, "--from-file", file_of(tmp_path, prompts(3)), "--wait")
    assert (code, lines, one_sentence(err), "drover topology" in err) == (1, [], True, True), err


# -- completion -------------------------------------------------------------------------------------------------------


async def test_bash_completes_commands_and_options() -> None:
    code, script, err = await drover("completion", "bash")
    assert (code, err) == (0, "")
    assert "complete -F _drover drover" in script

    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        asked = f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _drover; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split()

    assert completed("drover", "sub") == ["submit"]
    assert {"list", "show", "replay", "purge"} <= set(completed("drover", "dead", ""))
    assert "--from-file" in completed("drover", "submit", "--f")
    assert "succeeded" in completed("drover", "watch", "--status", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
async def test_other_shells_have_their_script(shell: str) -> None:
    code, script, err = await drover("completion", shell)
    assert (code, err, "submit" in script) == (0, "", True)
    code, _, err = await drover("completion", "cmd")
    assert (code, one_sentence(err)) == (2, True)


async def test_a_reader_that_has_enough_is_no_error() -> None:
    nowhere = {"DROVER_AMQP_URL": "amqp://127.0.0.1:1/", "DROVER_DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    buffered = {**os.environ, **nowhere, "PYTHONUNBUFFERED": ""}
    for command in ("completion bash", "doctor --json"):  # more than a buffer holds, and less
        typed = f"{sys.executable} -m service {command} | true"
        process = await asyncio.create_subprocess_shell(typed, stdout=-1, stderr=-1, env=buffered)
        assert (await process.communicate())[1] == b""
