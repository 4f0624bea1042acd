"""The service itself as a command."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import resource
import signal

import structlog
import uvloop

from service.app import build
from service.settings import Settings, load_settings, unknown_variables
from service.telemetry import configure_logging

log = structlog.get_logger(__name__)


def serve() -> int:
    """Run the service until SIGTERM or SIGINT; a second signal ends it at once.

    Reads its settings from the environment (see `drover config`). Starts its HTTP server, opens the database
    (waiting for it if it is away), applies migrations (or waits for them: DROVER_MIGRATE_ON_START), declares the
    topology, and consumes `generation.requests`.

        OXEN_API_KEY=... drover serve
        OXEN_API_KEY=sandbox-key OXEN_BASE_URL=http://127.0.0.1:8100 drover serve    # on `drover sandbox`
    """
    settings = load_settings()
    configure_logging(settings.log_format)
    for name, meant in unknown_variables().items():
        log.warning("setting.unknown", variable=name, probably_meant=meant)
    faulthandler.register(signal.SIGUSR1)  # on stderr, where each thread stands: told though the loop stands still
    _allow_connections()
    uvloop.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)  # asked twice: whatever the drain waits for, the operator does not
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    app = build(settings)
    starting = asyncio.create_task(app.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    starting.result()
    _spare_the_collector()
    await stopping
    await app.stop()


def _allow_connections() -> None:
    """As many as the system lets this process have: each client that follows events is one, and the usual soft limit of
    1,024 is there for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spare_the_collector() -> None:
    """What was imported stays for good, and hardly anything of a request is a cycle: it need not be looked through for
    garbage again and again. What that is worth could not be told from the machine's noise."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
