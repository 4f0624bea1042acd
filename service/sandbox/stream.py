"""The event stream: a broadcast without replay. What fires while nobody listens is lost, as at the hub."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from service.sandbox.dice import Dice
    from service.sandbox.faults import Faults

_KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
_MOST_SPANS: Final = 100_000


class Span:
    """When one stream was open, in Unix seconds; `closed_at` is None while it is."""

    __slots__ = ("closed_at", "opened_at")

    def __init__(self) -> None:
        self.opened_at = time.time()
        self.closed_at: float | None = None

    def entry(self) -> dict[str, float | None]:
        """As the ledger shows it to tests."""
        return {"opened_at": self.opened_at, "closed_at": self.closed_at}


class Subscriber:
    """One open stream. The events of one turn of the loop leave in one write."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._torn = False
        self._cut_timer: asyncio.TimerHandle | None = None

    def push(self, frame: bytes) -> None:
        """Have a frame written soon."""
        if not self._torn:
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

    def tear(self, frame: bytes) -> None:
        """Write what waits and half of this frame, then drop the connection."""
        self.push(frame[: len(frame) // 2])
        self._torn = True

    def cut_after(self, delay_s: float | None) -> None:
        """Cut it so much later instead of when it was to be cut before; None: never."""
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._cut_timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, self.cut)

    async def write_to(self, response: web.StreamResponse, keep_alive_s: float, muted: Callable[[], bool]) -> None:
        """Write frames as they come, and a comment after each `keep_alive_s` of silence, until closed."""
        while True:
            try:
                async with asyncio.timeout(keep_alive_s):
                    await self._wake.wait()
            except TimeoutError:
                if muted():
                    continue
                self.push(_KEEP_ALIVE)
            self._wake.clear()
            if self._frames:
                frames, self._frames = self._frames, []
                await response.write(b"".join(frames))
            if self._frames:  # come while the others were written
                continue
            if self._torn and self._request.transport is not None:
                # Not aborted: what has been written is to arrive, and then nothing, not even the end of the body.
                self._request.transport.close()
            if self._torn or self._closed:
                return


class Broadcast:
    """All open streams. `peak` is the highest number there ever was at once, `log` when each was open (the latest, if
    there are too many)."""

    def __init__(self, keep_alive_s: float, dice: Dice, faults: Callable[[], Faults]) -> None:
        self._keep_alive_s = keep_alive_s
        self._dice = dice
        self._faults = faults
        self._subscribers: set[Subscriber] = set()
        self._tears: list[object] = []
        self.peak = 0
        self.log: deque[Span] = deque(maxlen=_MOST_SPANS)

    def __len__(self) -> int:
        return len(self._subscribers)

    def publish(self, event: str, payload: Mapping[str, object], *, times: int = 1) -> None:
        """Send one event to everyone who listens now."""
        if not self._subscribers or self._muted():
            return
        frame = b"event: " + event.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
        tears = bool(self._tears) and self._tears_at(payload)
        for subscriber in self._subscribers:
            if tears:
                subscriber.tear(frame)
            else:
                subscriber.push(frame * times)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request with the stream, for as long as it lasts."""
        response = web.StreamResponse(headers=_HEADERS)
        subscriber, span = Subscriber(request), Span()
        # Subscribed before the headers leave: who has seen them misses nothing that comes after.
        self._subscribers.add(subscriber)
        self.log.append(span)
        self.peak = max(self.peak, len(self._subscribers))
        subscriber.cut_after(self._draw_cut())
        try:
            await response.prepare(request)
            await subscriber.write_to(response, self._keep_alive_s, self._muted)
        except ConnectionError:
            pass  # the client has gone, which is how most streams end
        finally:
            subscriber.cut_after(None)
            self._subscribers.discard(subscriber)
            span.closed_at = time.time()
        return response

    def heed_faults(self) -> None:
        """Take note of a new set of faults."""
        self._tears.clear()
        for subscriber in self._subscribers:
            subscriber.cut_after(self._draw_cut())

    def tear(self, generation_id: str | None = None) -> None:
        """Have every open stream break off in the middle of an event: of that generation's, or of the next one that
        anybody hears."""
        self._tears.append(generation_id)

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

    def _muted(self) -> bool:
        return self._faults().stream_muted

    def _draw_cut(self) -> float | None:
        every_s = self._faults().stream_cut_every_s
        return None if every_s is None else every_s * self._dice.between("stream_cut_every_s", 0.5, 1.5)

    def _tears_at(self, payload: Mapping[str, object]) -> bool:
        """Whether a tear waits for this event; it is spent then."""
        for wanted in (payload.get("generation_id"), None):
            if wanted in self._tears:
                self._tears.remove(wanted)
                return True
        return False
