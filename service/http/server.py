"""The HTTP server of a replica. Liveness is the process alone; readiness is the database and the broker.

The hub is in neither: a pod that is restarted because the hub is away helps nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import structlog
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.domain.errors import ConfigurationError, DroverError
from service.http.access import Refusal, refusal
from service.http.events import PATH as EVENTS
from service.http.page import PATHS as PAGE
from service.http.problems import Handler, problem, problems
from service.telemetry import Metrics
from service.wire.envelope import MAX_BODY_BYTES
from service.wire.json import dumps

log = structlog.get_logger(__name__)
CHECK_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0  # for answers under way
KEEP_ALIVE_S = 75.0
# Nothing here is ever shown in a frame, guessed to be of another type, kept by a cache, or read by another site.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
GUARDED = "/v1/"
MOST_CALLS = (
    2000  # of the API at a time: each may hold a body of 256 KiB. Followers of events have a limit of their own
)
Check = Callable[[], Awaitable[str | None]]


class HttpServer:
    """Listens while it runs. `checks` answer None, or in one sentence why the replica is not ready."""

    name = "http"

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        *,
        alive: Callable[[], str | None],
        checks: Mapping[str, Check],
        details: Callable[[], Mapping[str, object]],
        routes: Iterable[web.AbstractRouteDef] = (),
        tokens: Collection[str] = (),
    ) -> None:
        self._host = host
        self.port = port  # the one that it got, once it is open
        self._metrics = metrics
        self._alive = alive
        self._checks = checks
        self._details = details
        self._routes = routes
        self._tokens = tokens
        self._runner: web.AppRunner | None = None
        self._draining = False
        self._calls = 0

    async def open(self) -> int:
        """Binds the port; the port that it got. ConfigurationError when it cannot."""
        app = web.Application(middlewares=[problems, self._guard], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_secure)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.add_routes(self._routes)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=CLOSE_TIMEOUT_S,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"DROVER_HTTP_HOST and DROVER_HTTP_PORT: cannot listen on {self._host}:{self.port} "
                f"({error.strerror or error}); choose another port."
            ) from error
        self.port = self._runner.addresses[0][1]
        log.info("http.listening", host=self._host, port=self.port)
        return self.port

    async def run(self) -> None:
        """Serves until cancelled."""
        await asyncio.Event().wait()

    async def drain(self) -> None:
        """From here on not ready, so that nobody sends more; health and metrics still answer."""
        self._draining = True

    async def close(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The API is for those who may; health, metrics and documents are for all. So is the page where tokens guard
        what it shows; where none do, it goes by the API's rule."""
        if request.path.startswith(GUARDED) or (request.path in PAGE and not self._tokens):
            refused = refusal(request.method, request.headers, tokens=self._tokens, listens_on=self._host)
            if refused is not None:
                return problem(refused)
        if not request.path.startswith(GUARDED) or request.path == EVENTS:
            return await handler(request)
        if self._calls >= MOST_CALLS:
            return problem(Refusal(503, "Too many", f"{MOST_CALLS} calls are under way here; try again, or another."))
        self._calls += 1
        try:
            return await handler(request)
        finally:
            self._calls -= 1

    async def _healthz(self, _: web.Request) -> web.Response:
        reason = self._alive()
        return _answer(503 if reason else 200, {"status": "failing" if reason else "ok", "reason": reason})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = {name: reason for name, check in self._checks.items() if (reason := await _told(check))}
        if self._draining:
            reasons["process"] = "shutting down"
        status = "not ready" if reasons else "ready"
        return _answer(503 if reasons else 200, {"status": status, "reasons": reasons, **self._details()})

    async def _metrics_page(self, _: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _told(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except DroverError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _answer(status: int, document: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=dumps(document), content_type="application/json")
