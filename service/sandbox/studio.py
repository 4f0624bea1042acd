"""Renders commissions off the event loop, a few at a time.

Threads, not processes: the work is done in numpy and in the encoder, which let go of the interpreter's lock, and a
thread starts at once whatever the embedding program's `__main__` looks like.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.sandbox.commission import Commission

Renderer = Callable[["Commission", Path, Callable[[], bool]], None]


class RenderingUnavailableError(RuntimeError):
    """Rendering was asked for, and its packages are not installed."""


class Studio:
    """Runs at most `workers` renderings at once."""

    def __init__(self, workers: int) -> None:
        self._render = _load_renderer()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox-render")
        self._closing = threading.Event()

    async def render(self, commission: Commission, path: Path, abandoned: Callable[[], bool]) -> bool:
        """Write the file; False, and no file, when `abandoned` or the closing of the studio came first."""

        def given_up() -> bool:
            return self._closing.is_set() or abandoned()

        await asyncio.get_running_loop().run_in_executor(self._pool, self._render, commission, path, given_up)
        return not given_up()

    async def close(self) -> None:
        """Stop rendering: a running one ends at its next frame, a waiting one never starts."""
        self._closing.set()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


def _load_renderer() -> Renderer:
    try:
        # numpy, av and Pillow belong to the extra `sandbox`; without rendering the sandbox does not need them.
        from service.sandbox.rendering import render  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise RenderingUnavailableError(
            f"Rendering needs the package {error.name!r}: install drover with its extra `sandbox` "
            "(pip install '.[sandbox]' in the clone), or use --no-render"
        ) from error
    return render
