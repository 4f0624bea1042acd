"""The sandbox hub as a command."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import uvloop
from cyclopts import Parameter, validators
from rich.console import Console

from service.domain.errors import ConfigurationError
from service.sandbox import RenderingUnavailableError, Sandbox, SandboxOptions
from service.sandbox import serve as serve_sandbox


def sandbox(
    *,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8100,
    host: str = "127.0.0.1",
    api_key: str = "sandbox-key",
    delay: float = 3.0,
    jitter: float = 0.0,
    render: bool = True,
    seed: int | None = None,
) -> int:
    """Run a stand-in of the Oxen hub: every endpoint drover uses, the event stream, and real MP4s.

    For example:

        drover sandbox
        drover sandbox --delay 30 --jitter 10 --no-render --seed 1
        curl -X PUT localhost:8100/sandbox/faults -d '{"answers_lost": 0.1}'

    Faults are switched while it runs, with `PUT /sandbox/faults`; `GET /sandbox/faults/schema` explains each, and
    `service/sandbox/control.py` what else a test can do to it.

    Parameters
    ----------
    port
        Where it listens; 0 takes a free port.
    host
        The address it listens on.
    api_key
        The bearer token that it takes.
    delay
        Seconds from a POST to the end of its generation, rendering not counted.
    jitter
        The delay varies by so many seconds, up and down.
    render
        Make real files; without it, results have no bytes and load is cheap.
    seed
        Repeats what chance decides: which calls a fault strikes, and the jitter.
    """

    def ready(started: Sandbox) -> None:
        Console().print(f"sandbox hub: {started.url}", highlight=False, soft_wrap=True)

    try:
        options = SandboxOptions(
            host=host, port=port, api_key=api_key, delay_s=delay, jitter_s=jitter, render=render, seed=seed
        )
        uvloop.run(serve_sandbox(options, ready))
    except RenderingUnavailableError as error:
        raise ConfigurationError(str(error)) from error
    except ValueError as error:
        raise ConfigurationError(f"The sandbox cannot be run so: {error}.") from error
    except OSError as error:
        told = error.strerror or os.strerror(error.errno or 0)
        raise ConfigurationError(f"Cannot listen on {host}:{port} ({told}); choose another --port.") from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    return 0
