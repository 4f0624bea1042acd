"""Reads what a run has left in the database and the broker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from tests.chaos.evidence import EventRow, OutputRow, RequestRow
from tests.support.servers import Servers


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds."""

    requests: tuple[RequestRow, ...]
    outputs: tuple[OutputRow, ...]
    events: tuple[EventRow, ...]


async def stored(database_url: str) -> Stored:
    """Reads all of it."""
    connection = await asyncpg.connect(database_url)
    try:
        requests = await connection.fetch(
            "select request_id, state::text, sequence, attempts, finished_at is not null as ended from requests"
        )
        outputs = await connection.fetch("select request_id, generation_id, status::text from outputs")
        events = await connection.fetch(
            "select event_id::text, request_id, sequence, type, stored, published_at is not null as published "
            "from outbox"
        )
    finally:
        await connection.close()
    return Stored(
        tuple(RequestRow(*row) for row in requests),
        tuple(OutputRow(*row) for row in outputs),
        tuple(EventRow(*row) for row in events),
    )


async def unfinished(database_url: str) -> int:
    """Requests without an end, and events that are not published."""
    connection = await asyncpg.connect(database_url)
    try:
        count: int = await connection.fetchval(
            "select (select count(*) from requests where finished_at is null)"
            " + (select count(*) from outbox where published_at is null)"
        )
    finally:
        await connection.close()
    return count


async def ready_messages(servers: Servers, amqp_url: str, queue: str) -> int:
    """How many messages a queue holds."""
    vhost = urlsplit(amqp_url).path[1:]
    found = json.loads(await servers.manage("GET", f"/api/queues/{vhost}/{queue}"))
    return int(found.get("messages", 0))
