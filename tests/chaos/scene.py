"""Where a workload plays: its team, its hub and its database, and what can be done to them and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from service.sandbox import Sandbox
from tests.support.bus import Team, name_of
from tests.support.killable import Replica


@dataclass(slots=True)
class Scene:
    """Where a workload plays."""

    team: Team
    hub: Sandbox
    database_url: str
    amqp_url: str
    replica: Replica | None = field(default=None)
    speaking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send(self, body: Mapping[str, Any] | bytes, **properties: Any) -> None:
        """A request. Whoever cuts a workload off takes the lock: a call that is cut off would close the channel."""
        async with self.speaking:
            await self.team.send(body, **properties)

    async def cancel(self, body: Mapping[str, Any] | bytes, **properties: Any) -> None:
        """A cancel; likewise."""
        async with self.speaking:
            await self.team.cancel(body, **properties)

    async def execute(self, *statements: str) -> None:
        """Meddles with the database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def until(self, question: str) -> None:
        """Waits until the database answers yes."""
        connection = await asyncpg.connect(self.database_url)
        try:
            async with asyncio.timeout(20):
                while not await connection.fetchval(question):
                    await asyncio.sleep(0.01)  # not every change has an event
        finally:
            await connection.close()

    async def in_state(self, state: str) -> None:
        """Waits until a request is in that state."""
        await self.until(f"select exists (select from requests where state = '{state}')")  # noqa: S608

    async def let_time_pass(self) -> None:
        """Leases and claims run out, as after six seconds, or thirty."""
        await self.execute(
            "do $$ begin if to_regclass('requests') is not null then "
            "update leadership set expires_at = '-infinity'; "
            "update requests set claim_expires_at = now() where state = 'submitting'; end if; end $$"
        )

    async def streaming(self) -> None:
        """Waits until a replica listens to the hub."""
        async with asyncio.timeout(20):
            while not len(self.hub.hub.broadcast):
                await asyncio.sleep(0.01)  # the sandbox has no signal for a stream

    async def told(self, name: str) -> None:
        """Waits for an event of that name."""
        await self.team.wait_for(lambda team: any(name_of(event) == name for event in team.events))

    def end_generations(self, most: int = 4) -> None:
        """Ends what is active at the hub, now."""
        for generation in list(self.hub.hub.ledger.active.values())[:most]:
            self.hub.hub._fall_due(generation)
