"""The command line as people use it: what works, and one clear sentence and an exit code for what does not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path

import av
import pytest

from service.sandbox import Sandbox, SandboxOptions
from tests.support.command import drover, one_sentence
from tests.support.replica import KEY, Process, environment, running

pytestmark = pytest.mark.asyncio
CLOSED = "127.0.0.1:1"


async def test_submit_with_wait_and_download_ends_with_an_mp4_that_plays(
    amqp_url: str, database_url: str, tmp_path: Path
) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.1, render=True))
    async with hub, running(environment(amqp_url, database_url, hub.url)):
        code, out, err = await drover(
            *("submit", "--prompt", "a lighthouse at dawn", "--wait", "--download", str(tmp_path)),
            DROVER_AMQP_URL=amqp_url,
            OXEN_BASE_URL=hub.url,
        )
        (tmp_path / "elsewhere").mkdir()
        elsewhere, _, told = await drover(
            *("submit", "--prompt", "x", "--num-frames", "9", "--download", str(tmp_path / "elsewhere")),
            DROVER_AMQP_URL=amqp_url,
        )
    assert (elsewhere, one_sentence(told), "OXEN_BASE_URL" in told) == (1, True, True), told
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (code, err) == (0, "")
    assert [word for word in out.split() if word.startswith("generation.")] == [
        "generation.accepted",
        "generation.submitted",
        "generation.succeeded",
    ]
    [path] = tmp_path.glob("*.mp4")
    assert f"file: {path}" in out
    with av.open(path) as video:
        picture, sound = video.streams.video[0], video.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (picture.width, picture.height, float(picture.average_rate or 0)) == (1280, 720, 24.0)
        assert sum(1 for _ in video.decode(picture)) == 121


async def test_submit_prints_events_as_json_lines_and_fails_with_1_when_the_generation_does(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with running(environment(amqp_url, database_url, hub.url)):
        code, out, _ = await drover("submit", "--prompt", "[fail]", "--wait", "--json", DROVER_AMQP_URL=amqp_url)
        refused, _, err = await drover(
            "submit", "--prompt", "x", "-p", "num_frames=1", "--no-check", "--wait", DROVER_AMQP_URL=amqp_url
        )
    assert code == 1
    assert [json.loads(line).get("type") for line in out.splitlines()][-1] == "drover.generation.failed.v1"
    assert refused == 1
    assert err.startswith("invalid_input: ")
    assert "/input/num_frames: The value is less than the minimum of 9." in err


async def test_submit_without_wait_prints_the_id_and_reads_parameters_from_a_file(
    amqp_url: str, database_url: str, hub: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "input.json").write_text('{"prompt": "from the file", "num_frames": 9}')
    async with running(environment(amqp_url, database_url, hub.url)):
        code, out, _ = await drover(
            *("submit", "--input", str(tmp_path / "input.json"), "-p", "seed=3", "--request-id", "mine"),
            DROVER_AMQP_URL=amqp_url,
        )
        async with asyncio.timeout(10):
            while not hub.ledger()["generations"]:
                await asyncio.sleep(0.02)  # the sandbox has no signal for a POST
    assert (code, out) == (0, "request_id: mine\n")
    assert hub.ledger()["generations"][0]["parameters"] == {"prompt": "from the file", "num_frames": 9, "seed": 3}


async def test_topology_and_migrate_may_be_repeated_and_speak_json(amqp_url: str, database_url: str) -> None:
    for _ in range(2):
        code, out, _ = await drover("topology", "--json", DROVER_AMQP_URL=amqp_url)
        assert code == 0
        assert "generation.requests" in json.loads(out)["queues"]
        code, out, _ = await drover("migrate", "--json", DROVER_DATABASE_URL=database_url)
        assert (code, json.loads(out)) == (0, {"applied": []})


def _free_port() -> tuple[socket.socket, int]:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken, taken.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (["serve"], {}, 2, "OXEN_API_KEY is required"),
        (["serve"], {"OXEN_API_KEY": "k", "DROVER_AMQP_URL": "http://u:CANARY@x"}, 2, "DROVER_AMQP_URL"),
        (["serve"], {"OXEN_API_KEY": "k", "OXEN_BASE_URL": "hub.oxen.ai"}, 2, "OXEN_BASE_URL"),
        (["serve"], {"OXEN_API_KEY": "k", "DROVER_SHUTDOWN_GRACE_S": "5"}, 2, "DROVER_SHUTDOWN_GRACE_S"),
        (["serve"], {"OXEN_API_KEY_FILE": "/no/such/file"}, 2, "OXEN_API_KEY_FILE"),
        (["migrate"], {"DROVER_DATABASE_URL": f"postgresql://u:CANARY@{CLOSED}/x"}, 1, "Postgres could not be reached"),
        (["topology"], {"DROVER_AMQP_URL": f"amqp://u:CANARY@{CLOSED}/"}, 1, "RabbitMQ could not be reached"),
        (["submit", "--prompt", "x"], {"DROVER_AMQP_URL": f"amqp://{CLOSED}/"}, 1, "RabbitMQ could not be reached"),
        (["submit", "--param", "broken"], {}, 2, "--param takes name=value"),
        (["submit", "--input", "/no/such/file"], {}, 2, "--input cannot be read"),
        (["submit", "--request-id", "a b", "--wait"], {}, 2, "--request-id must be 1 to 128"),
        (["submit", "--timeout", "-1", "--wait"], {}, 2, "--timeout"),
        (["submit", "--num-generations", "many"], {}, 2, "--num-generations"),
        (["sandbox", "--port", "99999"], {}, 2, "--port"),
        (["submitt"], {}, 2, "submitt"),
    ],
)
async def test_what_people_get_wrong_ends_in_one_clear_sentence(
    arguments: list[str], variables: Mapping[str, str], code: int, says: str
) -> None:
    ended, _, err = await drover(*arguments, **variables)
    assert ended == code, err
    assert says in err
    assert one_sentence(err), err
    assert "CANARY" not in err


async def test_a_taken_port_and_a_wrong_password_are_named(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    taken, port = _free_port()
    variables = environment(amqp_url, database_url, hub.url, DROVER_HTTP_PORT=str(port))
    with taken:
        for arguments, says in ((["serve"], "DROVER_HTTP_PORT"), (["sandbox", "--port", str(port)], "--port")):
            code, _, err = await drover(*arguments, **variables)
            assert (code, says in err, one_sentence(err)) == (2, True, True), err
    wrong = amqp_url.replace("//guest:guest@", "//guest:CANARY@")
    code, _, err = await drover("topology", DROVER_AMQP_URL=wrong)
    assert (code, "DROVER_AMQP_URL" in err, one_sentence(err), "CANARY" in err) == (2, True, True, False), err


async def test_a_request_to_a_broker_without_a_service_is_not_swallowed(amqp_url: str) -> None:
    code, _, err = await drover("submit", "--prompt", "x", DROVER_AMQP_URL=amqp_url)
    assert code == 1
    assert one_sentence(err), err
    assert "drover topology" in err


async def test_a_wrong_key_is_told_in_the_log_and_the_request_waits(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    variables = environment(amqp_url, database_url, hub.url, OXEN_API_KEY="CANARY-wrong")
    async with Process(variables) as service:
        await service.ready()
        refused = await service.logged("stream.refused")
        assert "OXEN_API_KEY" in refused["reason"]
        await drover("submit", "--prompt", "x", DROVER_AMQP_URL=amqp_url)
        waiting = await service.logged("request.accepted")
        assert waiting["level"] == "info"
        held = await service.logged_where(lambda line: "OXEN_API_KEY" in str(line.get("reason")) and "was" in line)
        assert (held["event"], held["level"]) == ("request.requeued", "warning")
    assert hub.ledger()["generations"] == []
    assert "CANARY" not in json.dumps(service.lines)


async def test_a_wrong_hub_address_is_told_in_the_log(amqp_url: str, database_url: str) -> None:
    async with Process(environment(amqp_url, database_url, f"http://{CLOSED}")) as service:
        await service.ready()
        assert "could not be reached" in (await service.logged("stream.lost"))["reason"]
