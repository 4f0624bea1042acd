"""Takes the evidence of a run together: from the database, the hub, the broker and the replicas."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from tests.chaos.clients import Producer, Recorder
from tests.chaos.conductor import Conductor
from tests.chaos.evidence import EventRow, Evidence, OutputRow, RequestRow
from tests.chaos.hub import bought, streams
from tests.chaos.stage import Stage
from tests.chaos.traffic import Asked
from tests.chaos.troupe import Troupe
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
            "select event_id::text, request_id, sequence, type, stored, "
            "not exists (select from unpublished u where u.row_id = o.row_id) as published from outbox o"
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
            "select (select count(*) from requests where finished_at is null) + (select count(*) from unpublished)"
        )
    finally:
        await connection.close()
    return count


async def ready_messages(servers: Servers, amqp_url: str, queue: str) -> int:
    """How many messages a queue holds."""
    vhost = urlsplit(amqp_url).path[1:]
    found = json.loads(await servers.manage("GET", f"/api/queues/{vhost}/{queue}"))
    return int(found.get("messages", 0))


async def evidence(
    stage: Stage,
    troupe: Troupe,
    recorder: Recorder,
    producer: Producer,
    conductor: Conductor,
    asked: Sequence[Asked],
) -> Evidence:
    """Everything, once all replicas have been asked to end."""
    rows = await stored(stage.database_url)
    ledger = await stage.hub.ledger()
    quarantined = await ready_messages(stage.servers, stage.amqp_url, "generation.dead")
    ended_at = time.time()
    await troupe.close()
    log = sorted((line for replica in troupe.all for line in replica.log()), key=lambda line: line.at)
    errors = [f"{replica.name}: {line.rstrip()}" for replica in troupe.all for line in replica.process.errors]
    return Evidence(
        asked=asked,
        confirmed=frozenset(producer.confirmed),
        heard=tuple(recorder.heard),
        bought=bought(ledger),
        requests=rows.requests,
        outputs=rows.outputs,
        events=rows.events,
        streams=streams(ledger),
        incidents=tuple(sorted(conductor.incidents, key=lambda incident: incident.began_at)),
        log=tuple(log),
        stderr=tuple(errors),
        exit_codes=dict(troupe.exit_codes),
        calls=ledger["calls"],
        strikes=ledger["strikes"],
        quarantined=quarantined,
        ended_at=ended_at,
    )
