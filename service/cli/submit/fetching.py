"""Fetches a result's file: over http or https, from a public address or from the hub itself, redirects included.

Addresses are judged as they are connected to, not when a name is looked up: a name that answers otherwise the second
time gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from service.cli.submit.addresses import is_public
from service.domain.errors import PermanentError

PIECE_BYTES = 1 << 20
IDLE_TIMEOUT_S = 60.0
MOST_REDIRECTS = 5
MOST_BYTES = 8 << 30  # of one file: longer than any real one, and an end to one that has none
PORTS = {"http": 80, "https": 443}
Origin = tuple[str, int]


class ForbiddenResultError(PermanentError):
    """A URL that leads where no result is fetched from. Says why, without the URL, which carries its own key."""


class Fetcher:
    """An asynchronous context manager. `hub` is OXEN_BASE_URL, whose host and port may be anywhere."""

    def __init__(
        self,
        hub: str,
        *,
        permitted: Callable[[str], bool] = is_public,
        resolver: AbstractResolver | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._hub = _origin(urlsplit(hub))
        self._permitted = permitted
        self._resolver = resolver
        self._most_bytes = most_bytes

    async def __aenter__(self) -> Self:
        guarded = aiohttp.TCPConnector(socket_factory=self._open_socket, resolver=self._resolver)
        self._guarded = _session(guarded)
        self._free = _session(aiohttp.TCPConnector())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._guarded.close()
        await self._free.close()

    async def fetch(self, url: str, path: Path) -> None:
        """Under another name until it is whole. ForbiddenResultError; aiohttp's errors, OSError, TimeoutError."""
        scheme = urlsplit(url).scheme
        for _ in range(MOST_REDIRECTS + 1):
            parts = urlsplit(url)
            if parts.scheme not in PORTS:
                raise ForbiddenResultError("results are fetched over http and https only")
            if scheme == "https" and parts.scheme != "https":
                raise ForbiddenResultError("its redirect leads from https to http")
            session = self._free if _origin(parts) == self._hub else self._guarded
            onward = await self._try(session, url, path)
            if onward is None:
                return
            url = urljoin(url, onward)
        raise ForbiddenResultError(f"it was redirected more than {MOST_REDIRECTS} times")

    async def _try(self, session: aiohttp.ClientSession, url: str, path: Path) -> str | None:
        """One call: None when the file is there, else where it leads to."""
        try:
            async with session.get(url, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                    return response.headers["Location"]
                response.raise_for_status()
                await self._keep(response, path)
                return None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _ForbiddenAddressError) or "ForbiddenAddress" in str(error.os_error):
                raise ForbiddenResultError(
                    "it leads to an address that is not public, and neither host nor port are those of OXEN_BASE_URL"
                ) from None
            raise

    async def _keep(self, response: aiohttp.ClientResponse, path: Path) -> None:
        unfinished, size = path.with_name(path.name + ".part"), 0
        try:
            with unfinished.open("wb") as file:
                async for chunk in response.content.iter_chunked(PIECE_BYTES):
                    size += len(chunk)
                    if size > self._most_bytes:
                        raise ForbiddenResultError(f"it is longer than {self._most_bytes:,} bytes")
                    file.write(chunk)
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _open_socket(self, info: Any) -> socket.socket:  # noqa: ANN401 - as getaddrinfo has it
        """The last moment before a connection is made, for each address that is tried."""
        family, kind, protocol, _, address = info
        if not self._permitted(address[0]):
            raise _ForbiddenAddressError
        return socket.socket(family=family, type=kind, proto=protocol)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=IDLE_TIMEOUT_S)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


class _ForbiddenAddressError(OSError):
    """As an OSError, so that the next address of the name is tried; its text is what is left when several failed."""

    def __str__(self) -> str:
        return "ForbiddenAddress"


def _origin(parts: SplitResult) -> Origin:
    return (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme, 0)
