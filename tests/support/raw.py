"""A server that says exactly what a specification wants said, and notices when its clients are gone."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Answer = Callable[[StreamReader, StreamWriter], Awaitable[None]]


class RawServer:
    """One listening socket. `requests` holds what each connection sent first; `open` how many still stand."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._changed = asyncio.Condition()
        self._handlers: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is, for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drops every connection."""
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def wait_until(self, enough: Callable[[RawServer], bool], timeout_s: float = 5.0) -> None:
        """Waits for a connection to come or go."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: enough(self))

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        await self._note(1)
        try:
            await self._answer(_Recorder(reader, self.requests), writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the specification is over
        finally:
            self._handlers.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            await self._note(-1)

    async def _note(self, change: int) -> None:
        async with self._changed:
            self.open += change
            self._changed.notify_all()


class _Recorder(StreamReader):
    """The reader, which keeps the head of each request."""

    def __init__(self, reader: StreamReader, heads: list[bytes]) -> None:
        self._reader = reader
        self._heads = heads

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # type: ignore[override]
        read = await self._reader.readuntil(separator)
        self._heads.append(read)
        return read

    async def read(self, n: int = -1) -> bytes:
        return await self._reader.read(n)


@asynccontextmanager
async def raw_server(answer: Answer) -> AsyncIterator[RawServer]:
    """Listening while entered."""
    server = RawServer(answer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def silent(reader: StreamReader, _: StreamWriter) -> None:
    """Takes everything, says nothing, until the client goes."""
    while await reader.read(65536):
        pass


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> Answer:
    """One HTTP answer to each request of a connection; `length` may promise more than there is."""
    size = len(body) if length is None else length
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", "")).encode()

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + body)
            await writer.drain()
            if length is not None:
                writer.transport.abort()
                return

    return answer
