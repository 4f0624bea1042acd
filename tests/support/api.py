"""A caller of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp


class Answer(NamedTuple):
    """Of a call."""

    status: int
    kind: str
    document: Any
    headers: Mapping[str, str]


class Shown(NamedTuple):
    """An event of the stream; `data` is the CloudEvent."""

    id: str
    name: str
    data: dict[str, Any]

    @property
    def subject(self) -> str:
        """The request's id."""
        return str(self.data["subject"])


class Api:
    """An asynchronous context manager; `url` is the replica's."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = headers

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(self._url, headers=self._headers, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """One call."""
        async with self._session.request(method, path, **options) as response:
            body = await response.read()
            return Answer(response.status, response.content_type, json.loads(body) if body else None, response.headers)

    async def get(self, path: str, **params: str) -> Answer:
        """A question."""
        return await self.call("GET", path, params=params)

    async def post(self, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None, **params: str) -> Answer:
        """A request."""
        return await self.call("POST", "/v1/generations", json=body, headers=headers, params=params)

    async def delete(self, request_id: str) -> Answer:
        """A cancel."""
        return await self.call("DELETE", f"/v1/generations/{request_id}")

    @asynccontextmanager
    async def stream(self, last: str | None = None, **params: str) -> AsyncIterator[AsyncIterator[Shown]]:
        """The events, from when the replica has said that it follows; `last` is the id to go on from."""
        headers = {} if last is None else {"Last-Event-ID": last}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with self._session.get("/v1/events", params=params, headers=headers, timeout=timeout) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            assert (await response.content.readuntil(b"\n\n")).startswith(b"retry:")
            yield _shown(response.content)


async def _shown(content: aiohttp.StreamReader) -> AsyncIterator[Shown]:
    while frame := await _frame(content):
        if not frame.startswith(b":"):
            fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
            yield Shown(fields["id"], fields["event"], json.loads(fields["data"]))


async def _frame(content: aiohttp.StreamReader) -> bytes:
    frame = b""
    while not frame.endswith(b"\n\n"):
        line = await content.readline()
        if not line:
            return b""
        frame += line
    return frame
