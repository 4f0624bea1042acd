"""The event stream: a broadcast without replay. What fires while nobody listens is lost, as at the hub."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from aiohttp import web

_KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


class Subscriber:
    """One open stream. The events of one turn of the loop leave in one write."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self._closed = False

    def push(self, frame: bytes) -> None:
        """Have a frame written soon."""
        self._frames.append(frame)
        self._wake.set()

    def close(self) -> None:
        """End the stream in good order."""
        self._closed = True
        self._wake.set()

    def cut(self) -> None:
        """Drop the connection where it stands; frames not yet written are lost."""
        self._frames.clear()
        self.close()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def write_to(self, response: web.StreamResponse, keep_alive_s: float) -> None:
        """Write frames as they come, and a comment after each `keep_alive_s` of silence, until closed."""
        while True:
            try:
                async with asyncio.timeout(keep_alive_s):
                    await self._wake.wait()
            except TimeoutError:
                self.push(_KEEP_ALIVE)
            self._wake.clear()
            if self._frames:
                frames, self._frames = self._frames, []
                await response.write(b"".join(frames))
            elif self._closed:
                return


class Broadcast:
    """All open streams. `peak` is the highest number there ever was at once."""

    def __init__(self, keep_alive_s: float) -> None:
        self._keep_alive_s = keep_alive_s
        self._subscribers: set[Subscriber] = set()
        self.peak = 0

    def __len__(self) -> int:
        return len(self._subscribers)

    def publish(self, event: str, payload: dict[str, object]) -> None:
        """Send one event to everyone who listens now."""
        if not self._subscribers:
            return
        frame = b"event: " + event.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
        for subscriber in self._subscribers:
            subscriber.push(frame)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request with the stream, for as long as it lasts."""
        response = web.StreamResponse(headers=_HEADERS)
        subscriber = Subscriber(request)
        # Subscribed before the headers leave: who has seen them misses nothing that comes after.
        self._subscribers.add(subscriber)
        self.peak = max(self.peak, len(self._subscribers))
        try:
            await response.prepare(request)
            await subscriber.write_to(response, self._keep_alive_s)
        except ConnectionError:
            pass  # the client has gone, which is how most streams end
        finally:
            self._subscribers.discard(subscriber)
        return response

    def cut(self) -> int:
        """Cut every open stream abruptly; their number."""
        subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.cut()
        return len(subscribers)

    def close(self) -> None:
        """End every open stream."""
        for subscriber in self._subscribers:
            subscriber.close()
