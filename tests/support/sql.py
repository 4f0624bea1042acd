"""A plain connection to a database, to meddle with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Closed at the end, whatever became of it."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
