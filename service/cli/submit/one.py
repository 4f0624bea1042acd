"""One request, sent and followed: its events as they come, and its files."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.status import Status

from service.cli.submit.download import download
from service.cli.submit.fetching import Fetcher
from service.domain.errors import HubUnavailableError
from service.rabbit.producer import Producer

SUCCEEDED = "drover.generation.succeeded.v1"


async def submit_one(
    url: str,
    request: Mapping[str, Any],
    timeout_s: float,
    directory: Path | None,
    *,
    hub: str,
    follow: bool,
    as_json: bool,
) -> int:
    """Sends it; with `follow`, the exit code is 0 only when it succeeded."""
    request_id = request["request_id"]
    async with Producer(url) as producer:
        if follow:
            await producer.listen()
        await producer.send(request)
        _show({"request_id": request_id}, as_json=as_json)
        if not follow:
            return 0
        try:
            async with asyncio.timeout(timeout_s):
                last = await _follow(producer, request_id, as_json=as_json)
        except TimeoutError:
            raise HubUnavailableError(
                f"{request_id} did not end within {timeout_s:g} s; it goes on, and its event will come. "
                f"`drover status {request_id}` says where it is."
            ) from None
    if last["type"] != SUCCEEDED:
        return 1
    if directory is not None:
        async with Fetcher(hub) as fetcher:
            for path in await download(fetcher, last["data"], directory):
                _show({"file": str(path)}, as_json=as_json)
    return 0


async def _follow(producer: Producer, request_id: str, *, as_json: bool) -> dict[str, Any]:
    """Shows every event as it comes: a live line on a terminal, plain lines elsewhere; answers the last one."""
    console = Console()
    began = time.monotonic()
    last: dict[str, Any] = {}
    live = console.is_terminal and not as_json
    with _progress(console, request_id, live=live) as report:
        async for event in producer.events(request_id):
            last = event
            data = event["data"]
            ids = " ".join(item["generation_id"] or "lost" for item in data["outputs"])
            if as_json:
                sys.stdout.write(orjson.dumps(event).decode() + "\n")
                sys.stdout.flush()
            else:
                name = event["type"].removeprefix("drover.").removesuffix(".v1")
                console.print(
                    f"{time.monotonic() - began:7.1f} s  {name}  {ids}".rstrip(), highlight=False, soft_wrap=True
                )
                report(data["status"])
    if not as_json:
        console.print_json(orjson.dumps(last).decode())
        if error := last["data"]["error"]:
            faults = "".join(f" {item['path']}: {item['message']}." for item in error["details"] if "path" in item)
            Console(stderr=True, markup=False).print(
                f"{error['code']}: {error['message']}{faults}", highlight=False, soft_wrap=True
            )
    return last


class _progress:  # noqa: N801 - reads as a statement: with _progress(...)
    """A spinner with the state and the time, which counts up by itself; nothing where there is no terminal."""

    def __init__(self, console: Console, request_id: str, *, live: bool) -> None:
        self._status: Status | None = console.status(f"{request_id}: sent") if live else None
        self._request_id = request_id
        self._text = "sent"
        self._began = time.monotonic()
        self._ticking: asyncio.Task[None] | None = None

    def __enter__(self) -> Callable[[str], None]:
        if self._status is not None:
            self._status.start()
            self._ticking = asyncio.create_task(self._tick(self._status))
        return self._report

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        if self._ticking is not None:
            self._ticking.cancel()

    def _report(self, text: str) -> None:
        self._text = text

    async def _tick(self, status: Status) -> None:
        while True:
            status.update(f"{self._request_id}: {self._text}, {time.monotonic() - self._began:.0f} s")
            await asyncio.sleep(0.5)


def _show(document: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        for name, value in document.items():
            Console().print(f"{name}: {value}", highlight=False, soft_wrap=True)
