"""Fixtures that every test may ask for; nothing starts unless a test asks."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog
from xdist.scheduler.loadscope import LoadScopeScheduling

from service.app import App
from service.sandbox import Sandbox, SandboxOptions
from service.telemetry import configure_logging
from tests.support.bus import Team
from tests.support.replica import KEY, environment, running
from tests.support.servers import Servers

# Files whose tests share a server of their own, a browser or an image: each is run by one worker. The mark
# `xdist_group` would say so where it matters, but pytest-xdist 3.8 writes it to an attribute that pytest 9.2 does not
# read, and it is lost.
WHOLE = (
    "tests/chaos/test_broker_faults.py",
    "tests/chaos/test_database_faults.py",
    "tests/chaos/test_campaign.py",
    "tests/deploy/test_image.py",
    "tests/chaos/test_cluster.py",
    "tests/e2e/test_page.py",
    "tests/e2e/test_tls.py",
    "tests/integration/test_roles.py",
)


def _scope_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return file if file in WHOLE else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Tests go to the workers one by one, those of some files all together, whatever `--dist` says."""
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope_of
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    configure_logging("json")


@pytest.fixture(autouse=True)
def _heard(_logging: None) -> None:
    """A test before may have run a command, which silences the log."""
    audible = structlog.make_filtering_bound_logger(logging.INFO)
    structlog.configure(wrapper_class=audible, cache_logger_on_first_use=True)


@pytest.fixture(scope="session")
def servers() -> Servers:
    """The local stack, up."""
    return Servers.up()


@pytest_asyncio.fixture(scope="session")
async def template(servers: Servers) -> AsyncIterator[str]:
    """A migrated template database of this test process."""
    name = f"drover_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
    await servers.make_template(name)
    yield name
    await servers.drop_template(name)


@pytest_asyncio.fixture
async def database_url(servers: Servers, template: str) -> AsyncIterator[str]:
    """A fresh database with the schema."""
    url = await servers.make_database(template)
    yield url
    await servers.drop_database(url)


@pytest_asyncio.fixture
async def amqp_url(servers: Servers) -> AsyncIterator[str]:
    """A fresh vhost."""
    url = await servers.make_vhost()
    yield url
    await servers.drop_vhost(url)


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Sandbox]:
    """A sandbox that renders nothing and ends its generations after 0.3 s."""
    sandbox = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.3, render=False))
    await sandbox.start()
    yield sandbox
    await sandbox.stop()


@pytest.fixture
def variables(amqp_url: str, database_url: str, hub: Sandbox) -> dict[str, str]:
    """The environment of a replica on these servers."""
    return environment(amqp_url, database_url, hub.url)


@pytest_asyncio.fixture
async def app(variables: dict[str, str]) -> AsyncIterator[App]:
    """A replica in this process, ready."""
    async with running(variables) as replica:
        yield replica


@pytest_asyncio.fixture
async def team(app: App, amqp_url: str) -> AsyncIterator[Team]:
    """A team on the bus of that replica."""
    async with Team(amqp_url) as connected:
        yield connected
