"""A cable to Postgres that knows the protocol well enough to lose one answer: it is committed, and nobody hears it."""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import suppress

from service.postgres.statements import statements
from tests.support.proxy import Cable

SSL_REQUEST = 80877103
READY = b"Z\x00\x00\x00\x05I"  # ready for query, in no transaction: committed


class StatementCable(Cable):
    """`lose_answer(name)` cuts the connection on which that statement is carried out next, instead of its answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._wanted: str | None = None
        self.lost = asyncio.Event()

    def lose_answer(self, name: str) -> None:
        """The next answer with rows to a named statement; `lost` is set when it happened."""
        self._wanted = statements()[name]
        self.lost.clear()

    async def _both(self, reader: StreamReader, writer: StreamWriter, there: StreamReader, back: StreamWriter) -> None:
        session = _Session()
        await asyncio.gather(
            self._ask(session, reader, back), self._answer(session, there, writer), return_exceptions=True
        )
        for end in (writer, back):
            end.close()
        self._writers -= {writer, back}

    async def _ask(self, session: _Session, source: StreamReader, sink: StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                session.read(data)
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _answer(self, session: _Session, source: StreamReader, sink: StreamWriter) -> None:
        held = b""
        with suppress(ConnectionError):
            while data := await source.read(65536):
                held += data
                if session.executing is not None and session.executing == self._wanted:
                    if not held.endswith(READY):
                        continue
                    if b"D" in [kind for kind, _ in _messages(held)]:
                        self._wanted = None
                        self.lost.set()
                        break
                sink.write(held)
                held = b""
                await sink.drain()
        sink.transport.abort()


class _Session:
    """What a client has said on one connection: the texts of its prepared statements, and which it executes."""

    def __init__(self) -> None:
        self._unread = b""
        self._begun = False
        self._texts: dict[bytes, str] = {}
        self.executing: str | None = None

    def read(self, data: bytes) -> None:
        """Follows the client's messages; the first ones have no kind."""
        self._unread += data
        while not self._begun and len(self._unread) >= 8:
            length, code = struct.unpack("!ii", self._unread[:8])
            if len(self._unread) < length:
                return
            self._unread = self._unread[length:]
            self._begun = code != SSL_REQUEST
        if not self._begun:
            return
        for kind, body in _messages(self._unread):
            self._unread = self._unread[len(body) + 5 :]
            if kind == b"P":
                name, text, _ = body.split(b"\x00", 2)
                self._texts[name] = text.decode()
            elif kind == b"B":
                _, name, _ = body.split(b"\x00", 2)
                self.executing = self._texts.get(name)


def _messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole messages at the beginning of `data`: kind and body."""
    while len(data) >= 5:
        (length,) = struct.unpack("!i", data[1:5])
        if len(data) < length + 1:
            return
        yield data[:1], data[5 : length + 1]
        data = data[length + 1 :]
