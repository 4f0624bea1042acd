"""A producer and an audience on the bus that cost as little as can be: the clock runs for who is between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import orjson
from aiormq.abc import DeliveredMessage

from service.domain.messages import DEFAULT_MODEL
from service.rabbit.connection import Link
from service.rabbit.pipeline import Outgoing, publish_all
from service.rabbit.topology import COMMANDS, EVENTS, REQUEST_KEY, REQUESTS

AT_ONCE = 500
TICK_S = 0.01
CONFIRM_S = 60.0
TERMINAL = ("succeeded", "failed", "cancelled", "expired", "rejected")
STORY = (
    "A lighthouse keeper walks down a spiral staircase at dawn, one hand on the iron rail, while the camera follows "
    "from behind; gulls cross the window slits, dust turns in the light, and the sea is heard before it is seen."
)


class Traffic:
    """Publishes requests, and notes when the end of each was heard. An async context manager."""

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self.published: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.events = 0
        self.repeated = 0
        self.failed = 0

    async def __aenter__(self) -> Self:
        self._links = [await Link.open(self._amqp_url, name) for name in ("load", "audience")]
        self._publishing = await self._links[0].channel(confirms=True)
        self._hearing = await self._links[1].channel(confirms=False)
        inbox = str((await self._hearing.queue_declare("", exclusive=True, auto_delete=True)).queue)
        await self._hearing.queue_bind(inbox, EVENTS, routing_key="#")
        await self._hearing.basic_consume(inbox, self._hear, no_ack=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self._links:
            await link.close()

    async def _hear(self, message: DeliveredMessage) -> None:
        self.events += 1
        name = (message.routing_key or "").rpartition(".")[2]
        if name not in TERMINAL:
            return
        self.failed += name != "succeeded"
        request_id = message.header.properties.correlation_id or ""
        self.repeated += request_id in self.ended
        self.ended.setdefault(request_id, time.time())

    async def burst(self, ids: Sequence[str], outputs: int) -> None:
        """As fast as the broker confirms."""
        for first in range(0, len(ids), AT_ONCE):
            await self._publish(ids[first : first + AT_ONCE], outputs)

    async def steadily(self, ids: Sequence[str], rate: float, outputs: int) -> None:
        """So many a second, whoever takes them."""
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while sent < len(ids):
                due = min(len(ids), int((time.monotonic() - began) * rate) + 1)
                if due > sent:
                    group.create_task(self._publish(ids[sent:due], outputs))
                    sent = due
                await asyncio.sleep(TICK_S)

    async def _publish(self, ids: Sequence[str], outputs: int) -> None:
        now = time.time()
        self.published.update(dict.fromkeys(ids, now))
        outcomes = await publish_all(self._publishing, [_request(key, outputs) for key in ids], CONFIRM_S)
        if faults := [fault for fault in outcomes if fault is not None]:
            raise faults[0]

    async def consumers(self) -> int:
        """How many take requests."""
        declared = await self._publishing.queue_declare(REQUESTS, passive=True)
        return declared.consumer_count or 0


def _request(request_id: str, outputs: int) -> Outgoing:
    document = {
        "request_id": request_id,
        "model": DEFAULT_MODEL,
        "input": {"prompt": f"{request_id} {STORY}", "seed": 7, "generate_audio": False},
        "num_generations": outputs,
        "metadata": {"tenant": "bench", "trace": request_id},
    }
    return Outgoing(
        COMMANDS,
        REQUEST_KEY,
        orjson.dumps(document),
        mandatory=True,
        message_id=request_id,
        message_type="",
        content_type="application/json",
        correlation_id=request_id,
    )
