"""A database without rows for each test that asks, through the real adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from service.postgres.database import Database
from service.postgres.leader import LeaseStore
from service.postgres.outbox import Outbox
from service.postgres.store import RequestStore
from tests.support.servers import Servers

EMPTY = """
delete from requests; delete from outbox; delete from unpublished; delete from orphan_events; delete from early_cancels;
delete from leadership; delete from limits
"""  # outputs go with their requests


@pytest_asyncio.fixture(scope="session")
async def spare(servers: Servers) -> AsyncIterator[list[str]]:
    """Databases that a test is done with. To empty one is many times quicker than to drop it and copy another."""
    urls: list[str] = []
    yield urls
    for url in urls:
        await servers.drop_database(url)


@pytest_asyncio.fixture
async def database_url(servers: Servers, template: str, spare: list[str]) -> AsyncIterator[str]:
    """A database with the schema and no rows. A test that changes more than rows takes `own_database_url`."""
    url = spare.pop() if spare else await servers.make_database(template)
    yield url
    connection = await asyncpg.connect(url)
    await connection.execute(EMPTY)
    await connection.close()
    spare.append(url)


@pytest_asyncio.fixture
async def own_database_url(servers: Servers, template: str) -> AsyncIterator[str]:
    """A database that is dropped after the test."""
    url = await servers.make_database(template)
    yield url
    await servers.drop_database(url)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The service's pool on a database of its own."""
    opened = Database(database_url, size=12)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A plain connection to the same database, to look and to meddle."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def store(database: Database) -> RequestStore:
    """Requests in that database."""
    return RequestStore(database)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    """Its outbox."""
    return Outbox(database)


@pytest.fixture
def lease(database: Database) -> LeaseStore:
    """Its lease, for the replica `first`."""
    return LeaseStore(database, "first")
