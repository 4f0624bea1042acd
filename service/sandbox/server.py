"""A running sandbox: start, stop, and what tests reach into."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from service.sandbox.control import ledger_view
from service.sandbox.endpoints import Endpoints
from service.sandbox.hub import Hub
from service.sandbox.studio import Studio

if TYPE_CHECKING:
    from types import TracebackType

    from service.sandbox.faults import Faults
    from service.sandbox.options import SandboxOptions

# How long stop() waits for handlers that are still answering once all that they wait for is over.
_SHUTDOWN_S: Final = 1.0
_BACKLOG: Final = 1024
NOT_STARTED: Final = "The sandbox has not been started"
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to


class Sandbox:
    """One stand-in hub. `async with Sandbox(options) as sandbox` starts and stops it; each can be started once."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self._hub: Hub | None = None
        self._runner: web.ServerRunner | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The base URL that clients use, without a slash at the end. Before the start there is none, and a client that
        was given none would go to the real hub."""
        if not self._url:
            raise RuntimeError(NOT_STARTED)
        return self._url

    @property
    def hub(self) -> Hub:
        """The hub behind the endpoints, for tests that look inside."""
        if self._hub is None:
            raise RuntimeError(NOT_STARTED)
        return self._hub

    @property
    def faults(self) -> Faults:
        """The faults in force; assign to its fields, or replace it (what differs, Faults says)."""
        return self.hub.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.hub.faults = faults

    def ledger(self) -> dict[str, Any]:
        """The same as GET /sandbox/ledger."""
        return ledger_view(self.hub)

    def cut_streams(self) -> int:
        """Cut every open stream abruptly; their number."""
        return self.hub.broadcast.cut()

    def tear_streams(self, generation_id: str | None = None) -> None:
        """Have every open stream break off in the middle of that generation's event, or of the next one."""
        self.hub.broadcast.tear(generation_id)

    def cancel(self, *generation_ids: str) -> None:
        """Cancel generations as somebody else would at the hub: without an event."""
        for generation_id in generation_ids:
            self.hub.cancel(self.hub.ledger.generations[generation_id])

    def forget(self, *generation_ids: str) -> None:
        """Have the hub know these generations no more; the ledger shows them as `forgotten`."""
        for generation_id in generation_ids:
            self.hub.ledger.forget(self.hub.ledger.generations[generation_id])

    async def start(self) -> None:
        """Bind and serve. Raises RenderingUnavailableError when `render` is on and its packages are missing."""
        options = self.options
        studio = await asyncio.to_thread(Studio, options.render_workers) if options.render else None
        self._hub = Hub(options, studio)
        endpoints = Endpoints(self._hub, options.api_key)
        # A handler is cancelled when its client goes: a stream is then closed at once, not at its next keep-alive.
        server = web.Server(endpoints.handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, options.host, options.port, backlog=_BACKLOG).start()
        port = self._runner.addresses[0][1]
        host = "127.0.0.1" if options.host in _ANY_ADDRESS else options.host
        self._url = (options.public_url or f"http://{host}:{port}").rstrip("/")
        self._hub.base_url = self._url

    async def stop(self) -> None:
        """Stop serving and remove the files; quick even with open streams and renderings under way."""
        if self._hub is not None:
            await self._hub.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._hub is not None:
            self._hub.results.remove()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


async def serve(options: SandboxOptions, on_ready: Callable[[Sandbox], None] | None = None) -> None:
    """Run a sandbox as a program: until cancelled or, on the main thread, SIGTERM, after which its files are gone too.

    `on_ready` is called with the sandbox once it listens.
    """
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Where signals cannot be handled (another thread, Windows) only cancelling is left.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, over.set)
    try:
        async with Sandbox(options) as sandbox:
            if on_ready is not None:
                on_ready(sandbox)
            await over.wait()
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)
