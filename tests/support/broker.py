"""What an operator or an accident does to a broker, and how to wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from tests.support.servers import Servers


async def wait_ready(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for what has no event of its own: the adapters tell their state by properties."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def connections(servers: Servers, amqp_url: str) -> dict[str, str]:
    """The names that clients of a vhost gave themselves, by the broker's name of each connection."""
    vhost = urlsplit(amqp_url).path[1:]
    found: list[dict[str, Any]] = json.loads(await servers.manage("GET", f"/api/vhosts/{vhost}/connections"))
    return {entry["name"]: entry.get("client_properties", {}).get("connection_name", "") for entry in found}


async def close_connections(servers: Servers, amqp_url: str, name: str) -> None:
    """Closes every connection of that name, as an operator would; the broker's statistics lag by seconds."""
    async with asyncio.timeout(20):
        while True:
            keys = [key for key, given in (await connections(servers, amqp_url)).items() if given == name]
            for key in keys:
                try:
                    await servers.manage("DELETE", f"/api/connections/{quote(key)}")
                except HTTPError as error:
                    if error.code != 404:  # gone already
                        raise
            if keys:
                return
            await asyncio.sleep(0.05)
