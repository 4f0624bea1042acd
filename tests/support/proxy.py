"""A cable to a server that can be pulled out, cut, put back, or made to swallow the answers."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Cable:
    """A TCP proxy in this process. `url` is the given one through the cable."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._answers_pass = asyncio.Event()
        self._answers_pass.set()

    async def __aenter__(self) -> Self:
        await self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unplug()
        self.pass_answers()  # what a failed test has left held
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        credentials, at, _ = self._target.netloc.rpartition("@")
        return urlunsplit(self._target._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    async def plug(self) -> None:
        """Lets clients connect, always at the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        """Cuts every connection and refuses new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Resets every connection that stands."""
        for writer in self._writers:
            writer.transport.abort()

    def hold_answers(self) -> None:
        """The server hears everything, and nothing that it says arrives until `pass_answers`."""
        self._answers_pass.clear()

    def pass_answers(self) -> None:
        """What was held arrives, on the connections that still stand."""
        self._answers_pass.set()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, back}
        task = asyncio.ensure_future(self._both(reader, writer, there, back))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _both(self, reader: StreamReader, writer: StreamWriter, there: StreamReader, back: StreamWriter) -> None:
        await asyncio.gather(_pump(reader, back), _pump(there, writer, self._answers_pass))
        self._writers -= {writer, back}


async def _pump(source: StreamReader, sink: StreamWriter, may_pass: asyncio.Event | None = None) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            if may_pass is not None:
                await may_pass.wait()
            sink.write(data)
            await sink.drain()
    sink.close()
    with suppress(ConnectionError):
        await sink.wait_closed()
