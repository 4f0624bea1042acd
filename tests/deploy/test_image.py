"""What deploy/Dockerfile builds: built without an engine (see tests/support/image.py), and run as a container is."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from service.sandbox import Sandbox
from tests.support.bus import Team, name_of
from tests.support.command import drover
from tests.support.image import Build, Container, Image, remove, wheels
from tests.support.ports import free_port
from tests.support.replica import environment, get, running
from tests.support.servers import REPOSITORY, Servers

pytestmark = pytest.mark.timeout(600)  # the first test builds, and the first run ever fetches the packages
LOCKS = [REPOSITORY / "deploy" / "lock" / f"{name}.txt" for name in ("build", "image", "demo")]
UNCHECKED = b"\1\0\0\0"  # of a .pyc: it goes by the source's hash, and nobody looks at the source
BUILDERS = {"pip", "setuptools", "wheel", "hatchling", "ensurepip", "cc", "gcc", "make", "ld"}


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    """The Dockerfile, of which nothing is built yet; stages that were are kept until the last test."""
    folder = Path(tempfile.mkdtemp(prefix="drover-image-"))
    try:
        packages = wheels(LOCKS, REPOSITORY / ".local" / "wheels")
        yield Build(REPOSITORY, REPOSITORY / "deploy" / "Dockerfile", packages, folder)
    finally:
        remove(folder)


@pytest.fixture
def image(build: Build) -> Image:
    """The service's image."""
    return build.perform("drover")


@pytest_asyncio.fixture
async def empty_database_url(servers: Servers) -> AsyncIterator[str]:
    """A database without a schema."""
    name = f"drover_image_{os.getpid()}"
    connection = await asyncpg.connect(servers.database_url)
    try:
        await connection.execute(f"create database {name}")
        yield servers.database_url.rpartition("/")[0] + f"/{name}"
        await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


def test_the_image_holds_the_service_and_no_builder(image: Image) -> None:
    names = {path.name.partition("-")[0] for path in image.root.rglob("*")}
    assert sorted(names & BUILDERS) == []
    assert sorted(path.name for path in image.root.iterdir()) == ["opt", "usr"]
    assert sorted(path.name for path in (image.root / "opt").iterdir()) == ["drover", "healthcheck.py"]
    (packages,) = image.root.glob("opt/drover/lib/python3.*/site-packages")
    assert not {"tests", "deploy", ".git"} & {path.name for path in packages.iterdir()}
    assert image.run("python", "-c", "import pip").returncode == 1


def test_every_file_of_the_service_is_in_it(image: Image) -> None:
    (installed,) = image.root.glob("opt/drover/lib/python3.*/site-packages/service")
    tracked = {path for path in (REPOSITORY / "service").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted = {path.relative_to(REPOSITORY / "service") for path in tracked}
    assert {path.suffix for path in wanted} >= {".py", ".sql", ".html", ".js", ".css"}
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert found == wanted


def test_its_bytecode_is_compiled_and_never_looks_at_the_source(image: Image) -> None:
    (packages,) = image.root.glob("opt/drover/lib/python3.*/site-packages")
    sources = list(packages.rglob("*.py"))
    compiled = list(packages.rglob("*.pyc"))
    assert len(sources) > 1000
    assert {path.read_bytes()[4:8] for path in compiled} == {UNCHECKED}
    names = {path.parent.parent / path.name.partition(".")[0] for path in compiled}
    assert {path for path in sources if path.with_suffix("") not in names} == set()


def test_its_user_may_write_nothing_of_it(image: Image) -> None:
    found = image.run("find", str(image.root), "!", "-type", "l", "-writable")
    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)


@pytest.mark.asyncio
async def test_it_migrates_serves_answers_its_health_check_and_drains_on_sigterm(
    image: Image, amqp_url: str, empty_database_url: str, hub: Sandbox
) -> None:
    port = str(free_port())
    variables = environment(amqp_url, empty_database_url, hub.url, DROVER_HTTP_PORT=port, DROVER_API_TOKENS="token")
    variables["DROVER_MIGRATE_ON_START"] = "false"
    migrated = await asyncio.to_thread(image.run, "drover", "migrate", **variables)
    assert (migrated.returncode, migrated.stderr) == (0, "")
    unhealthy = await asyncio.to_thread(image.run, *image.health, DROVER_HTTP_PORT=port)
    assert (unhealthy.returncode, unhealthy.stderr) == (1, f"port {port}: [Errno 111] Connection refused\n")
    async with Container(image, variables) as replica, Team(amqp_url) as team:
        assert await replica.ready() == int(port)
        healthy = await asyncio.to_thread(image.run, *image.health, DROVER_HTTP_PORT=port)
        assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "", "")
        assert (await get(f"http://127.0.0.1:{port}/readyz"))[0] == 200
        assert (await get(f"http://127.0.0.1:{port}/docs"))[0] == 200
        hub.faults.answer_delay_s = 1.0
        await team.send({"request_id": "late", "input": {"prompt": "x"}})
        async with asyncio.timeout(20):
            while not hub.ledger()["generations"]:
                await asyncio.sleep(0.01)  # the sandbox has no signal for a POST
        replica.terminate()
        assert await replica.ended() == 0
        await team.wait_for(lambda heard: any(name_of(event) == "submitted" for event in heard.events))
    assert replica.errors == []
    assert (await replica.logged("service.stopped"))["level"] == "info"


@pytest.mark.asyncio
async def test_the_sandbox_image_renders_and_answers_its_health_check(
    build: Build, amqp_url: str, database_url: str, tmp_path: Path
) -> None:
    sandbox = build.perform("sandbox")
    port = str(free_port())
    health = [port if word == "8100" else word for word in sandbox.health]
    command = [port if word == "8100" else word for word in sandbox.command]
    results = Path(tempfile.mkdtemp(prefix="drover-image-tmp-"))  # what a container has for /tmp
    results.chmod(0o777)
    try:
        async with Container(sandbox, {"TMPDIR": str(results)}, *command, "--delay", "0", writes=True) as process:
            async with asyncio.timeout(60):
                while (await asyncio.to_thread(sandbox.run, *health)).returncode != 0:
                    assert process.process.returncode is None, process.errors
            variables = environment(amqp_url, database_url, f"http://127.0.0.1:{port}")
            async with running(variables):
                film = ["--prompt", "x", "--num-frames", "9", "--resolution", "square"]
                code, _, err = await drover("submit", *film, "--wait", "--download", str(tmp_path), **variables)
            assert code == 0, err
            process.terminate()
            assert await process.ended() == 0
    finally:
        shutil.rmtree(results)
    assert [path.read_bytes()[4:8] for path in tmp_path.iterdir()] == [b"ftyp"]
