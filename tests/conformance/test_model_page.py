"""Every code sample of the model page runs against the sandbox, as it stands there, but for the base URL.

`model_page.md` is the hub's public page of the model. Its samples are real programs, so they run as such: bash with
curl, jq and awk, Python with requests. All start at once, since the polling ones sleep five seconds between two looks.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.sandbox import SandboxOptions
from tests.conformance.caller import LTX, PATIENCE_S, Caller, calling

pytestmark = pytest.mark.asyncio

PAGE = Path(__file__).with_name("model_page.md")
BASE_URL = "https://hub.oxen.ai"
ALL_PARAMETERS = {
    "num_frames": 121,
    "resolution": "landscape_16_9",
    "frames_per_second": 24,
    "generate_audio": True,
    "video_quality": "high",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. `name` is the path of its tabs and its language."""

    name: str
    code: str

    @property
    def language(self) -> str:
        return self.name.rsplit("/", 1)[-1]


def samples() -> list[Sample]:
    """The samples of the page in its order, each with the titles of the tabs around it."""
    found: list[Sample] = []
    tabs: list[str] = []
    block: list[str] = []
    language = ""
    for line in PAGE.read_text().splitlines():
        mark = line.strip()
        if language:
            if mark == "```":
                found.append(Sample("/".join([*tabs, language]), textwrap.dedent("\n".join(block)) + "\n"))
                block, language = [], ""
            else:
                block.append(line)
        elif title := re.fullmatch(r'<Tab title="(.+)">', mark):
            tabs.append(title[1])
        elif mark == "</Tab>":
            tabs.pop()
        elif fence := re.match(r"```(bash|python)\b", mark):
            language = fence[1]
    return found


SAMPLES = {sample.name: sample for sample in samples()}


def program(sample: Sample, url: str) -> str:
    """The text that is run."""
    code = sample.code.replace(BASE_URL, url)
    # The page's Python samples with all parameters carry the `true` of JSON, which is no name in Python.
    return code.replace('"generate_audio": true', '"generate_audio": True') if sample.language == "python" else code


def awk_that_does_not_wait(folder: Path) -> None:
    """Put an awk first on the path that reads its input as it comes.

    The stream samples pipe curl into awk. mawk, the awk of Debian, fills its buffer before it looks at a line, so with
    it they hang although the event has come; gawk does not, and mawk has an option.
    """
    if gawk := shutil.which("gawk"):
        command = f'exec {gawk} "$@"'
    elif mawk := shutil.which("mawk"):
        command = f'exec {mawk} -W interactive "$@"'
    else:
        return
    (folder / "awk").write_text(f"#!/bin/sh\n{command}\n")
    (folder / "awk").chmod(0o755)


async def run(sample: Sample, caller: Caller, folder: Path) -> str:
    """Run a sample to its end; what it prints."""
    file = folder / re.sub(r"\W+", "-", sample.name)
    file.write_text(program(sample, caller.sandbox.url))
    environment = os.environ | {
        "OXEN_API_KEY": caller.sandbox.options.api_key,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    interpreter = sys.executable if sample.language == "python" else "bash"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(interpreter, file, env=environment, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(3 * PATIENCE_S):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@dataclass(frozen=True, slots=True)
class Playing:
    """All samples under way against one sandbox."""

    caller: Caller
    runs: dict[str, asyncio.Task[str]]


@pytest_asyncio.fixture(scope="module")
async def playing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Playing]:
    """The delay leaves the stream samples time to subscribe: they do so after their POST, and the stream has no replay.

    The keep-alives are frequent because curl, at the end of the stream samples, notices only at its next write that awk
    has left.
    """
    folder = tmp_path_factory.mktemp("samples")
    awk_that_does_not_wait(folder)
    async with calling(SandboxOptions(delay_s=1.5, keep_alive_s=0.5)) as caller:
        runs = {name: asyncio.create_task(run(sample, caller, folder)) for name, sample in SAMPLES.items()}
        yield Playing(caller, runs)
        for task in runs.values():
            task.cancel()
        await asyncio.gather(*runs.values(), return_exceptions=True)


def printed(language: str, text: str) -> dict[str, Any]:
    """The object that a sample prints: JSON from jq and curl, a Python literal from print."""
    value: dict[str, Any] = ast.literal_eval(text) if language == "python" else json.loads(text)
    return value


async def assert_film(caller: Caller, url: str) -> None:
    status, content = await caller.download(url)
    assert (status, content[4:8]) == (200, b"ftyp")


async def test_the_page_has_twelve_samples_and_the_one_that_fetches_the_model() -> None:
    modes = [f"{mode}/{part}" for mode in ("Sync", "Async", "Async with SSE") for part in ("Minimal", "All parameters")]
    assert list(SAMPLES) == [f"{mode}/{language}" for mode in modes for language in ("bash", "python")] + ["bash"]


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("Sync/")])
async def test_a_blocking_sample_prints_the_url_of_a_film(playing: Playing, name: str) -> None:
    answer = printed(SAMPLES[name].language, await playing.runs[name])
    assert answer["model"] == LTX
    [video] = answer["videos"]
    await assert_film(playing.caller, video["url"])


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("Async/") and name.endswith("bash")])
async def test_a_polling_shell_sample_prints_the_generation_with_its_parameters(playing: Playing, name: str) -> None:
    statuses, _, rest = (await playing.runs[name]).partition("Status: succeeded\n")
    assert set(statuses.split("\n")) <= {"Status: queued", "Status: processing", ""}
    generation = printed("bash", rest)
    assert (generation["status"], generation["prompt"]) == ("succeeded", "<prompt>")
    expected = ALL_PARAMETERS if "All" in name else {}
    assert {key: generation.get(key) for key in ALL_PARAMETERS if key in generation} == expected
    await assert_film(playing.caller, generation["result_url"])


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("Async/") and name.endswith("python")])
async def test_a_polling_python_sample_prints_the_url_of_a_film(playing: Playing, name: str) -> None:
    label, url = (await playing.runs[name]).split()
    assert label == "Result:"
    await assert_film(playing.caller, url)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("Async with SSE/")])
async def test_a_stream_sample_prints_the_event_of_its_own_generation(playing: Playing, name: str) -> None:
    event = printed(SAMPLES[name].language, await playing.runs[name])
    assert (event["status"], event["media_type"], event["model"]) == ("succeeded", "video", LTX)
    await assert_film(playing.caller, event["url"])


async def test_the_model_sample_prints_the_schema_that_the_page_tabulates(playing: Playing) -> None:
    model = printed("bash", await playing.runs["bash"])
    properties = model["json_request_schema"]["properties"]
    rows = re.findall(r"^\| `(\w+)` +\| `(\w+)` +\| (?:`(.+?)`|—) +\| (.+?) +\|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(properties)
    for name, kind, default, description in rows:
        assert properties[name]["type"] == kind
        assert properties[name].get("default") == (json.loads(default) if default else None)
        assert description.startswith(properties[name]["description"])
        limits = re.search(r"Range: (\d+) – (\d+)", description)
        assert (properties[name].get("minimum"), properties[name].get("maximum")) == (
            (int(limits[1]), int(limits[2])) if limits else (None, None)
        )
        choices = re.search(r"One of: (.+)\.", description)
        assert properties[name].get("enum") == (choices[1].split(", ") if choices else None)
