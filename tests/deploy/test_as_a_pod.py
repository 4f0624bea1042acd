"""drover as its pods run it: commands, settings and secrets as rendered, on real servers. No cluster is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from service.sandbox import Sandbox
from tests.deploy.manifests import Rendering, at, environment_of, render
from tests.support.command import drover
from tests.support.replica import Process
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio
MOUNTED = "/run/secrets/drover"


@pytest_asyncio.fixture
async def empty_database(servers: Servers) -> AsyncIterator[str]:
    """Not even the schema."""
    url = await servers.make_database("template0")
    yield url
    await servers.drop_database(url)


@pytest.fixture
def secrets(tmp_path: Path, empty_database: str, amqp_url: str, hub: Sandbox) -> Path:
    """The folder that the secrets are mounted at, each file with the line's end that an editor leaves."""
    keys = {"oxen-api-key": hub.options.api_key, "amqp-url": amqp_url, "database-url": empty_database}
    for key, value in {**keys, "api-tokens": "sandbox-token"}.items():
        (tmp_path / key).write_text(f"{value}\n")
    return tmp_path


def of_container(workload: str, secrets: Path) -> tuple[list[str], dict[str, str]]:
    """Its arguments and variables; the secrets in a folder of the test."""
    rendering = Rendering(render("overlays/sandbox"))
    container = at(rendering.pods_of(workload).spec, "containers.0")
    given = environment_of(rendering, container)
    return container["args"], {name: value.replace(MOUNTED, str(secrets)) for name, value in given.items()}


async def test_the_job_makes_the_schema_and_then_a_replica_is_ready_and_ends_in_good_order(
    secrets: Path, hub: Sandbox
) -> None:
    arguments, variables = of_container("Job/drover-migrate", secrets)
    code, told, errors = await drover(*arguments, **variables)
    assert (code, errors) == (0, ""), errors
    assert told.startswith("applied: ")

    arguments, variables = of_container("Deployment/drover", secrets)
    here = {"OXEN_BASE_URL": hub.url, "DROVER_HTTP_PORT": "0"}  # several tests run on one machine
    async with Process({**variables, **here}, *arguments) as replica, aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{await replica.ready()}"
        answers = {}
        for path in ("/healthz", "/readyz", "/metrics", "/v1/generations"):
            async with session.get(address + path) as answer:
                answers[path] = answer.status
        assert answers == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/generations": 401}
        token = {"Authorization": "Bearer sandbox-token"}
        async with session.get(f"{address}/v1/generations", headers=token) as answer:
            assert answer.status == 200
        assert "setting.unknown" not in {line["event"] for line in replica.lines}
        replica.terminate()
        assert await replica.ended() == 0
