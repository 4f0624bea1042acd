"""Calls to the hub over aiohttp. The paid POST is made once, never redirected, and every outcome is classified."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import ClientResponse

from service.clock import utc_now
from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import NotSent, OutcomeUnknown, OutputReported
from service.domain.gate import Submission, Unclear, Unreachable
from service.domain.matching import Sighting
from service.domain.states import OutputStatus, Request
from service.domain.upstream import Listing, ModelDescription, ModelOffer, Sightings
from service.hub.answers import (
    HELD,
    read_error,
    read_generation,
    read_json,
    read_model,
    read_models,
    read_signal,
    read_submit,
    without_key,
)
from service.hub.lists import ListError, ListingReader, ListReader, SightingsReader
from service.wire.json import dumps

log = structlog.get_logger(__name__)
CONNECT_TIMEOUT_S = 5.0
IDLE_REUSE_S = 4.0  # a connection that idled longer may be one that the hub is about to close
READ_TIMEOUT_S = 30.0
LIST_TIMEOUT_S = 120.0  # a long one takes its time, as long as it flows
LIST_PIECE_BYTES = 32 * 1024  # well under a millisecond to read
READ_CONNECTIONS = 32
MAX_ANSWER_BYTES = 1024 * 1024
MAX_MODELS_BYTES = 32 * 1024 * 1024

Answer = TypeVar("Answer")
Observe = Callable[[str, str, float], None]  # the call, its outcome, its seconds


class HubClient:
    """One session for everything but the stream. Opened and closed by the composition root."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connections: int,
        submit_timeout_s: float,
        observe: Observe = lambda _call, _outcome, _seconds: None,
    ) -> None:
        self._observe = observe
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "drover"}
        self._connections = connections
        self._submit_timeout_s = submit_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._paid: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes the session; connects nowhere yet."""
        self._session = self._new_session(READ_CONNECTIONS, READ_TIMEOUT_S)
        # Of their own: a POST that waited for a connection until its time was up would pass for a doubt.
        self._paid = self._new_session(self._connections, self._submit_timeout_s)

    async def close(self) -> None:
        """Closes every connection."""
        for session in (self._session, self._paid):
            if session is not None:
                await session.close()

    def _new_session(self, connections: int, total_s: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_REUSE_S),
            timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S),
        )

    @staticmethod
    def _opened(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
        if session is None:
            raise HubUnavailableError("The hub's client is not open.")
        return session

    async def submit(self, request: Request, parameters: Mapping[str, object]) -> Submission:
        """One POST. Connection errors before anything was written are `NotSent`; all later ones are unknown."""
        body: dict[str, object] = {**parameters, "model": request.model}
        if request.num_generations != 1:
            body["num_generations"] = request.num_generations
        if request.target_namespace is not None:
            body["target_namespace"] = request.target_namespace
        began, outcome = time.monotonic(), "unknown"
        try:
            async with self._opened(self._paid).post(
                f"{self._base_url}/api/ai/queue",
                data=dumps(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                answer = await _read(response, MAX_ANSWER_BYTES)
                outcome = _outcome(response.status)
                now, retry_after = utc_now(), response.headers.get("Retry-After")
                fact = read_submit(response.status, answer, retry_after, now)
                return Submission(fact, read_signal(response.status, fact, retry_after, now))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            outcome = "unreachable"
            told = f"the hub could not be reached: {_told(error)}"
            return Submission(NotSent(told, utc_now() + timedelta(seconds=1)), Unreachable())
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            cut = f"the POST was cut off after {self._submit_timeout_s} s" if isinstance(error, TimeoutError) else None
            return Submission(OutcomeUnknown(cut or f"the POST failed underway: {_told(error)}"), Unclear())
        finally:
            self._observe("submit", outcome, time.monotonic() - began)

    async def active(self, namespace: str | None, generation_ids: Iterable[str]) -> Listing:
        """One list of the active generations of a namespace (None: the key's own): which of these it does not show."""
        return await self._read_list({"namespace": namespace}, ListingReader(generation_ids))

    async def sightings(
        self,
        namespace: str | None,
        wanted: Callable[[Sighting], bool],
        model: str | None = None,
        status: OutputStatus | None = None,
    ) -> Sightings:
        """What is `wanted` of a list: of the active generations, or of one model's that ended as `status`."""
        query = {"namespace": namespace, "model": model, "status": None if status is None else status.value}
        return await self._read_list(query, SightingsReader(wanted))

    async def generation(self, generation_id: str) -> OutputReported | None:
        """One generation; None when the hub says that it does not know it."""
        status, body = await self._get("get", f"/api/ai/queue/{quote(generation_id, safe='')}")
        document = read_json(body)
        if status == 404 and read_error(document) is not None:
            return None
        report = read_generation(document) if status == 200 else None
        if report is None:
            raise HubUnavailableError(f"The hub's answer about a generation was not readable (status {status}).")
        return report

    async def cancel(self, generation_id: str) -> None:
        """DELETE of one generation; without effect on one that has ended or is not known. Safe to repeat."""
        path = f"/api/ai/queue/{quote(generation_id, safe='')}"
        async with self._asked("cancel", path, {}, total_s=READ_TIMEOUT_S, method="DELETE") as response:
            status, body = response.status, await _read(response, MAX_ANSWER_BYTES)
        known = 200 <= status < 300 or read_error(read_json(body)) is not None
        if not known or status == 429 or status >= 500:
            raise HubUnavailableError(f"The hub did not take a cancel (status {status}).")

    async def model(self, model: str) -> ModelDescription | None:
        """One model with its parameter schema; None when the hub says that there is none."""
        status, body = await self._get("model", f"/api/ai/models/{quote(model, safe='')}")
        document = read_json(body)
        if status == 404 and read_error(document) is not None:
            return None
        described = read_model(document, model) if status == 200 else None
        if described is None:
            raise HubUnavailableError(f"The hub's answer about a model was not readable (status {status}).")
        return described

    async def models(self) -> list[ModelOffer]:
        """All that the hub offers, chat models and all."""
        status, body = await self._get("model", "/api/ai/models", MAX_MODELS_BYTES)
        offers = read_models(read_json(body)) if status == 200 else None
        if offers is None:
            raise HubUnavailableError(f"The hub's list of models was not readable (status {status}).")
        return offers

    async def _get(self, call: str, path: str, limit: int = MAX_ANSWER_BYTES) -> tuple[int, bytes]:
        """Status and body."""
        async with self._asked(call, path, {}, total_s=READ_TIMEOUT_S) as response:
            return response.status, await _read(response, limit)

    async def _read_list(self, query: Mapping[str, str | None], reader: ListReader[Answer]) -> Answer:
        given = {name: value for name, value in query.items() if value is not None}
        try:
            async with self._asked("list", "/api/ai/queue", given, total_s=LIST_TIMEOUT_S) as response:
                if response.status != 200:
                    raise HubUnavailableError(f"The hub did not list generations (status {response.status}).")
                async for piece in response.content.iter_chunked(LIST_PIECE_BYTES):
                    reader.feed(piece)
                    await asyncio.sleep(0)  # a piece that is here already would not let the others work
            return reader.close()
        except ListError as error:
            raise HubUnavailableError(f"The hub's list of generations was not readable: {error}.") from None

    @asynccontextmanager
    async def _asked(
        self, call: str, path: str, query: Mapping[str, str], *, total_s: float, method: str = "GET"
    ) -> AsyncIterator[ClientResponse]:
        """A GET or a DELETE. aiohttp repeats one whose kept-alive connection was closed under it; that is harmless."""
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        began, outcome = time.monotonic(), "failed"
        try:
            async with self._opened(self._session).request(
                method, self._base_url + path, params=query, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = _outcome(response.status)
                if response.status in HELD:
                    raise HubRefusedKeyError(f"The hub answers {response.status}; check OXEN_API_KEY.")
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            unreached = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            outcome = "unreachable" if unreached else "failed"
            raise HubUnavailableError(f"The hub could not be asked ({path}): {_told(error)}") from error
        finally:
            self._observe(call, outcome, time.monotonic() - began)


async def _read(response: ClientResponse, limit: int) -> bytes:
    """The body, cut off behind `limit` bytes: what is longer than any real answer is then no JSON either. Without the
    key that the call was made with."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    key = response.request_info.headers.get("Authorization", "").removeprefix("Bearer ")
    return without_key(b"".join(chunks), key)


def _outcome(status: int) -> str:
    """An answer in one word, for the count of calls."""
    if status < 400:
        return "ok"
    if status == 429:
        return "throttled"
    return "refused" if status < 500 else "failed"


def _told(error: BaseException) -> str:
    """What goes into logs: connection errors speak; those about an answer may quote it, URL and all."""
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL | aiohttp.ClientPayloadError):
        return type(error).__name__
    return str(error) or type(error).__name__
