"""The hub's event stream over aiohttp-sse-client, one EventSource per connection.

The library reconnects by itself and then glues a half-read event to the next one, so it never gets to: `on_error`
raises. Keep-alive comments are swallowed by it, but they reset `sock_read`, which is the watchdog.
"""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp_sse_client.client import EventSource

from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import OutputReported
from service.hub.answers import HELD, read_generation, read_json, without_key

log = structlog.get_logger(__name__)
COMPLETED = "media_generation_completed"
CONNECT_TIMEOUT_S = 10.0
MAX_LINE_BYTES = 4 * 1024 * 1024


class StreamEndedError(Exception):
    """The hub closed the stream in good order."""


class HubStream:
    """Opens the stream with a session of its own, so that nothing else can hold its connection up."""

    def __init__(self, base_url: str, api_key: str, *, idle_timeout_s: float) -> None:
        self._url = f"{base_url.rstrip('/')}/api/events"
        self._api_key = api_key
        self._idle_timeout_s = idle_timeout_s
        self._response: aiohttp.ClientResponse | None = None

    @property
    def received(self) -> int:
        """Bytes on the present connection; keep-alives, which the library swallows, are among them."""
        return 0 if self._response is None else self._response.content.total_bytes

    async def listen(self, opened: Callable[[], None], heard: Callable[[OutputReported], None]) -> None:
        """One connection until it ends. `heard` must not wait: aiohttp drops what is buffered at a cut."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._idle_timeout_s)
        stood = False

        def on_open() -> None:
            nonlocal stood
            stood = True
            opened()

        async def on_answer(_: object, __: object, answer: aiohttp.TraceRequestEndParams) -> None:
            self._response = answer.response

        tracing = aiohttp.TraceConfig()
        tracing.on_request_end.append(on_answer)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trace_configs=[tracing]) as session,
                EventSource(
                    self._url,
                    session=session,
                    max_connect_retry=0,
                    on_open=on_open,
                    on_error=_raise_ended,
                    headers={"Authorization": f"Bearer {self._api_key}", "User-Agent": "drover"},  # it changes them
                    read_bufsize=MAX_LINE_BYTES,
                    raise_for_status=True,
                    allow_redirects=False,
                ) as source,
            ):
                async for event in source:
                    if event.type == COMPLETED:
                        _hear(without_key(event.data.encode(), self._api_key), heard)
        except aiohttp.ClientResponseError as error:
            if error.status in HELD:
                raise HubRefusedKeyError(
                    f"The hub refuses the event stream ({error.status}); check OXEN_API_KEY."
                ) from error
            raise HubUnavailableError(f"The hub answered {error.status} instead of the event stream.") from error
        except aiohttp.SocketTimeoutError as error:
            raise HubUnavailableError(f"The stream was silent for {self._idle_timeout_s:g} s.") from error
        except StreamEndedError as error:
            raise HubUnavailableError(_end_told(error.__context__, stood=stood)) from error
        except (OSError, aiohttp.ClientError, HttpProcessingError, UnicodeDecodeError, OverflowError) as error:
            # The class alone: the text of a parser's error quotes the event, prompt and signed URL included.
            told = str(error) if isinstance(error, OSError) else ""
            raise HubUnavailableError(f"The stream broke: {told or type(error).__name__}") from error
        raise HubUnavailableError("The stream ended.")


def _end_told(failed: BaseException | None, *, stood: bool) -> str:
    """The library calls on_error after a failed connect and after a strange answer, too."""
    if failed is not None:
        return f"The hub could not be reached: {failed}"
    if stood:
        return "The hub closed the stream."
    return "The hub answered with something else than an event stream; check OXEN_BASE_URL."


def _raise_ended() -> None:
    raise StreamEndedError


def _hear(data: bytes, heard: Callable[[OutputReported], None]) -> None:
    """One completion; what cannot be read is left to the sweep, and counted by its line in the log."""
    report = read_generation(read_json(data))
    if report is None or not report.status.ended:
        log.warning("stream.event_unreadable", size=len(data))
        return
    heard(report)
