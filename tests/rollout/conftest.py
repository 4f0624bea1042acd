"""The versions, and a database that has none of the schema yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.rollout.versions import make_next, unpack_previous
from tests.support.servers import REPOSITORY, Servers


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each version is."""
    return {
        "previous": unpack_previous(tmp_path_factory.mktemp("previous")),
        "present": REPOSITORY,
        "next": make_next(tmp_path_factory.mktemp("next")),
    }


@pytest_asyncio.fixture
async def database_url(servers: Servers) -> AsyncIterator[str]:
    """A database without any table: each test says who migrates it."""
    url = await servers.make_database("template1")
    yield url
    await servers.drop_database(url)
