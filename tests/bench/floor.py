"""The floor: what the work costs when nothing else is done. Durable and batched, and one event a request.

It validates nothing, follows no state machine, keeps no limits, repairs nothing after a lost stream or answer, and logs
nothing: a bound to compare with, not a design to ship. Settings are drover's; it runs until it is ended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import aiohttp
import aiormq
import asyncpg
import orjson
import uvloop
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from service.domain.facts import OutputReported
from service.hub.stream import HubStream
from service.rabbit.connection import Link
from service.rabbit.pipeline import Outgoing, publish_all
from service.rabbit.topology import EVENTS, REQUESTS
from service.workers.batches import Batches

POSTS = 64
PREFETCH = 2000
SCHEMA = """
create table if not exists floor (
    request_id text primary key, body bytea not null, generation_id text, event bytea, published boolean
) with (fillfactor = 70)
"""
STORE = """
insert into floor (request_id, body) select * from unnest($1::text[], $2::bytea[]) on conflict do nothing
returning request_id
"""
SUBMITTED = """
update floor f set generation_id = i.generation_id from unnest($1::text[], $2::text[]) as i (request_id, generation_id)
where f.request_id = i.request_id
"""
ENDED = """
update floor f set event = i.event, published = false from unnest($1::text[], $2::bytea[]) as i (request_id, event)
where f.request_id = i.request_id and f.event is null returning f.request_id, f.event
"""
PUBLISHED = "update floor set published = true where request_id = any($1::text[])"


class Floor:
    """One method a step; what gathered while one batch was done is the next."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], session: aiohttp.ClientSession) -> None:
        self._pool = pool
        self._session = session
        self.arrived: Batches[DeliveredMessage] = Batches("arrived", self._store)
        self.submitted: Batches[tuple[str, str]] = Batches("submitted", self._note_submitted)
        self.ended: Batches[tuple[str, OutputReported]] = Batches("ended", self._note_ended)
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._owners: dict[str, str] = {}
        self._early: dict[str, OutputReported] = {}
        self.consuming: Channel
        self.publishing: Channel

    async def _store(self, batch: list[DeliveredMessage]) -> None:
        requests = {(request := orjson.loads(item.body))["request_id"]: (request, item.body) for item in batch}
        new = await self._pool.fetch(STORE, list(requests), [body for _, body in requests.values()])
        await self.consuming.basic_ack(batch[-1].delivery_tag or 0, multiple=True, wait=False)
        for (request_id,) in new:
            self.waiting.put_nowait(requests[request_id][0])

    async def submit(self) -> None:
        """One POST after the other, for ever."""
        while True:
            request = await self.waiting.get()
            body = orjson.dumps({**request["input"], "model": request["model"]})
            async with self._session.post("/api/ai/queue", data=body) as response:
                generation_id = orjson.loads(await response.read())["generations"][0]["generation_id"]
            self.submitted.add((request["request_id"], generation_id))
            if (report := self._early.pop(generation_id, None)) is not None:
                self.ended.add((request["request_id"], report))
            else:
                self._owners[generation_id] = request["request_id"]

    def hear(self, report: OutputReported) -> None:
        """An end that the stream told."""
        owner = self._owners.pop(report.generation_id, None)
        if owner is None:
            self._early[report.generation_id] = report
        else:
            self.ended.add((owner, report))

    async def _note_submitted(self, batch: Sequence[tuple[str, str]]) -> None:
        await self._pool.execute(SUBMITTED, *map(list, zip(*batch, strict=True)))

    async def _note_ended(self, batch: Sequence[tuple[str, OutputReported]]) -> None:
        events = [
            orjson.dumps({"request_id": key, "status": report.status, "url": report.url}) for key, report in batch
        ]
        stored = await self._pool.fetch(ENDED, [key for key, _ in batch], events)
        told = [
            Outgoing(
                EVENTS,
                "generation.succeeded",
                event,
                mandatory=False,
                message_id=str(uuid4()),
                message_type="generation.succeeded",
                content_type="application/json",
                correlation_id=key,
            )
            for key, event in stored
        ]
        outcomes = await publish_all(self.publishing, told, 30)
        assert not any(outcomes), outcomes
        await self._pool.execute(PUBLISHED, [key for key, _ in stored])


async def main() -> None:
    """Runs it on the variables of drover."""
    given = os.environ
    pool = await asyncpg.create_pool(given["DROVER_DATABASE_URL"], min_size=4, max_size=4)
    await pool.execute(SCHEMA)
    consumer, publisher = [await Link.open(given["DROVER_AMQP_URL"], name) for name in ("consumer", "publisher")]
    headers = {"Authorization": f"Bearer {given['OXEN_API_KEY']}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=POSTS)
    async with aiohttp.ClientSession(given["OXEN_BASE_URL"], headers=headers, connector=connector) as session:
        floor = Floor(pool, session)
        floor.publishing = await publisher.channel(confirms=True)
        floor.consuming = await consumer.channel(confirms=False)
        opened = asyncio.Event()
        stream = HubStream(given["OXEN_BASE_URL"], given["OXEN_API_KEY"], idle_timeout_s=60)
        async with asyncio.TaskGroup() as group:
            for step in (floor.arrived, floor.submitted, floor.ended):
                group.create_task(step.run())
            for _ in range(POSTS):
                group.create_task(floor.submit())
            group.create_task(stream.listen(opened.set, floor.hear))
            await opened.wait()
            await floor.consuming.basic_qos(prefetch_count=PREFETCH)
            await floor.consuming.basic_consume(REQUESTS, _taker(floor))


def _taker(floor: Floor) -> aiormq.abc.ConsumerCallback:
    async def take(message: DeliveredMessage) -> None:
        floor.arrived.add(message)

    return take


if __name__ == "__main__":
    uvloop.run(main())
