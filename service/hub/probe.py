"""What the hub answers to calls that cost nothing, and what time it is there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import quote

import aiohttp
from msgspec import Struct

from service.clock import utc_now
from service.hub.answers import read_error, read_json, read_model, without_key

PROBE_TIMEOUT_S = 8.0
MAX_ANSWER_BYTES = 1024 * 1024
MAX_LIST_BYTES = 64 * 1024  # its beginning tells whose list it is


class Reach(StrEnum):
    """Whether there was an answer at all."""

    ANSWERED = "answered"
    NO_ADDRESS = "no address"
    NOT_REACHED = "not reached"
    TLS = "tls"
    TIMED_OUT = "timed out"


class Answer(Struct, frozen=True):
    """One answer: `own` when it is in a shape of the hub's, `told` its error, or why there is none."""

    reach: Reach
    status: int = 0
    own: bool = False
    told: str = ""
    location: str = ""
    ahead_s: float | None = None  # the hub's clock against ours, a second exactly; None: no Date
    off_by_s: float = 0.0


class HubState(Struct, frozen=True):
    """The lists of the key's own namespace (None) and of those that requests may bill, and the default model."""

    lists: tuple[tuple[str | None, Answer], ...]
    model: Answer
    model_outputs: tuple[str, ...] = ()


async def probe_hub(base_url: str, api_key: str, namespaces: Iterable[str], model: str) -> HubState:
    """Asks everything at once. Raises nothing: whatever goes wrong is an answer."""
    headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "drover"}
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    lists = [None, *sorted(namespaces)]
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        own = _Asker(session, base_url.rstrip("/"), api_key)
        (answer, outputs), answers = await asyncio.gather(own.model(model), asyncio.gather(*map(own.list, lists)))
    return HubState(tuple(zip(lists, answers, strict=True)), answer, outputs)


class _Asker:
    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str) -> None:
        self._session = session
        self._base_url = base_url
        self._api_key = api_key

    async def model(self, model: str) -> tuple[Answer, tuple[str, ...]]:
        answer, body = await self.ask(f"/api/ai/models/{quote(model, safe='')}", {}, MAX_ANSWER_BYTES)
        described = read_model(read_json(body), model) if answer.status == 200 else None
        return answer, () if described is None else described.outputs

    async def list(self, namespace: str | None) -> Answer:
        query = {} if namespace is None else {"namespace": namespace}
        return (await self.ask("/api/ai/queue", query, MAX_LIST_BYTES))[0]

    async def ask(self, path: str, query: Mapping[str, str], limit: int) -> tuple[Answer, bytes]:
        """One GET; the beginning of the body."""
        asked = utc_now()
        try:
            async with self._session.get(self._base_url + path, params=query, allow_redirects=False) as response:
                answered = utc_now()
                body = await response.content.read(limit)
                while len(body) < limit and (more := await response.content.read(limit - len(body))):
                    body += more
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(_reach(error), told=_told(error)), b""
        body = without_key(body, self._api_key)
        error_told = read_error(read_json(body))
        own = error_told is not None or (response.status == 200 and body.lstrip()[:1] == b"{")
        ahead_s = _ahead(response.headers.get("Date"), asked + (answered - asked) / 2)
        return (
            Answer(
                Reach.ANSWERED,
                response.status,
                own,
                "" if error_told is None else error_told[1],
                response.headers.get("Location", ""),
                ahead_s,
                (answered - asked).total_seconds() / 2,
            ),
            body,
        )


def _reach(error: BaseException) -> Reach:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Reach.NO_ADDRESS
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Reach.TLS
        case TimeoutError():
            return Reach.TIMED_OUT
    return Reach.NOT_REACHED


def _told(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return type(error).__name__  # its text may quote the URL


def _ahead(date: str | None, halfway: datetime) -> float | None:
    """Date has no fractions: on the average it is half a second behind."""
    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - halfway).total_seconds() + 0.5
