"""A client of the sandbox for tests: plain calls, and a reader of the event stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from service.sandbox import Sandbox, SandboxOptions

LTX = "ltx-2-3-quality-text-to-video"
STILL = "flux-2-dev-text-to-image"
SEEDLESS = "kling-2-1-standard-image-to-video"
CHAT = "llama-3-3-70b-instruct"

PATIENCE_S = 20.0
"""How long a test waits for what must come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `text` as it came, `json` what it holds."""

    status: int
    text: str
    json: Any


class Listener:
    """Reads one open stream, frame by frame."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def frame(self) -> str:
        """The next frame as it came, without the blank line at its end; "" when the stream has ended."""
        lines = []
        async with asyncio.timeout(PATIENCE_S):
            async for line in self.response.content:
                if line == b"\n":
                    break
                lines.append(line.decode())
        return "".join(lines).rstrip("\n")

    async def event(self) -> dict[str, Any]:
        """The data of the next completion event."""
        name, data = (await self.frame()).split("\n")
        assert name == "event: media_generation_completed"
        payload: dict[str, Any] = orjson.loads(data.removeprefix("data: "))
        return payload


class Caller:
    """Calls one sandbox with its key."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session
        self.key = {"Authorization": f"Bearer {sandbox.options.api_key}"}

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One call with the key; `headers` replace or add, written with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = {} if body is None else {"Content-Type": "application/json"}
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        async with self.session.request(
            method, self.sandbox.url + path, data=data, headers=self.key | kind | named
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(response.status, text, orjson.loads(text) if is_json else None)

    async def post(self, **body: object) -> list[str]:
        """Enqueue (the LTX model with some prompt, unless said otherwise); the ids."""
        answer = await self.call("POST", "/api/ai/queue", {"model": LTX, "prompt": "a heron"} | body)
        assert answer.status == 200, answer.text
        return [generation["generation_id"] for generation in answer.json["generations"]]

    async def set(self, **faults: object) -> None:
        """Put a set of faults in force, over HTTP; without any, the hub is healed."""
        answer = await self.call("PUT", "/sandbox/faults", faults)
        assert answer.status == 200, answer.text

    async def ledger(self) -> dict[str, Any]:
        """The ledger, over HTTP."""
        ledger: dict[str, Any] = (await self.call("GET", "/sandbox/ledger")).json
        return ledger

    async def get(self, generation_id: str) -> dict[str, Any]:
        """One generation."""
        generation: dict[str, Any] = (await self.call("GET", f"/api/ai/queue/{generation_id}")).json
        return generation

    async def end(self, **body: object) -> dict[str, Any]:
        """Enqueue one generation, wait for its end, and get it."""
        [generation_id] = await self.post(**body)
        await self.ended(generation_id)
        return await self.get(generation_id)

    async def ended(self, generation_id: str) -> None:
        """Until a generation has ended."""
        hub = self.sandbox.hub
        async with asyncio.timeout(PATIENCE_S):
            await hub.wait(hub.ledger.generations[generation_id])

    async def until(self, condition: Callable[[Sandbox], bool], patience_s: float = PATIENCE_S) -> None:
        """Until something is true of the sandbox."""
        async with asyncio.timeout(patience_s):
            while not condition(self.sandbox):  # the sandbox gives no signal of its inner state
                await asyncio.sleep(0.001)

    async def download(self, url: str) -> tuple[int, bytes]:
        """Status and bytes at a URL, without the key."""
        async with self.session.get(url) as response:
            return response.status, await response.read()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """An open event stream."""
        async with self.session.get(self.sandbox.url + "/api/events", headers=self.key) as response:
            assert response.status == 200
            yield Listener(response)


@asynccontextmanager
async def calling(options: SandboxOptions) -> AsyncIterator[Caller]:
    """A running sandbox of these options, and a client of it."""
    # Each call connects anew: a connection that a test had cut must not be the next one's.
    connector = aiohttp.TCPConnector(force_close=True)
    async with Sandbox(options) as sandbox, aiohttp.ClientSession(connector=connector) as session:
        yield Caller(sandbox, session)
