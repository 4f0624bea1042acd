"""Many requests, so many at a time: one display for all of them, and one line for what came of each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import orjson
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli.printable import printable
from service.cli.submit.download import download
from service.cli.submit.fetching import Fetcher, ForbiddenResultError
from service.domain.errors import HubUnavailableError, TransientError
from service.rabbit.producer import Producer, is_terminal

AGAIN = "Run the same command again: the ids are the same, so that nothing is paid for twice."


class Plan(Struct, frozen=True):
    """How a batch is sent: `in_flight` requests at a time, each followed for `timeout_s` seconds at most."""

    url: str
    hub: str
    in_flight: int
    timeout_s: float
    directory: Path | None
    follow: bool
    as_json: bool


class Display:
    """How far all of them are: a bar on a terminal, nothing elsewhere; and the result lines, above it."""

    def __init__(self, total: int, *, follow: bool, as_json: bool) -> None:
        self._as_json = as_json
        self._counts = dict.fromkeys(("sent", "accepted", "submitted", "succeeded", "not succeeded"), 0)
        if not follow:
            self._counts = {"sent": 0}
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=not as_json,
        )
        self._task = self._progress.add_task("", total=total, counts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def count(self, name: str) -> None:
        """One more of them is so far."""
        if name in self._counts:
            self._counts[name] += 1
        told = "  ".join(f"{word} {number}" for word, number in self._counts.items())
        self._progress.update(self._task, counts=told)

    def result(self, document: Mapping[str, Any]) -> None:
        """What came of one."""
        self._progress.advance(self._task)
        if self._as_json:
            sys.stdout.write(orjson.dumps(document).decode() + "\n")
        else:
            sys.stdout.write(printable("  ".join(_words(document))) + "\n")
        sys.stdout.flush()

    def summary(self) -> None:
        """How many there were of each, for people."""
        if not self._as_json:
            told = ", ".join(f"{number} {word}" for word, number in self._counts.items())
            sys.stderr.write(f"{told}\n")


def _words(document: Mapping[str, Any]) -> Iterator[str]:
    yield str(document["request_id"])
    yield str(document["status"])
    error = document.get("error")
    if error:
        yield f"{error['code']}: {error['message']}"
    yield from document.get("files") or (output["url"] for output in document.get("outputs", ()) if output["url"])


class Batch:
    """The requests on their way: who waits for which end."""

    def __init__(self, producer: Producer, plan: Plan, display: Display, fetcher: Fetcher) -> None:
        self._producer = producer
        self._plan = plan
        self._display = display
        self._fetcher = fetcher
        self._ends: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._heard: set[str] = set()
        self.failures = 0

    async def run(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """All of them. TransientError when the bus is lost on the way."""
        left = iter(requests)
        count = min(self._plan.in_flight, len(requests))
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen()) if self._plan.follow else None
            workers = [group.create_task(self._work(left)) for _ in range(count)]
            await asyncio.wait(workers)
            if listening is not None:
                listening.cancel()

    async def _work(self, left: Iterator[Mapping[str, Any]]) -> None:
        for request in left:
            await self._one(request)

    async def _one(self, request: Mapping[str, Any]) -> None:
        request_id = str(request["request_id"])
        ended = self._ends[request_id] = asyncio.get_running_loop().create_future()
        await self._producer.send(request)
        self._display.count("sent")
        if not self._plan.follow:
            self._display.result({"request_id": request_id, "status": "sent"})
            return
        try:
            event = await asyncio.wait_for(ended, self._plan.timeout_s)
        except TimeoutError:
            self._fail({"request_id": request_id, "status": "not ended in time"})
        else:
            await self._settle(event["data"])
        finally:
            del self._ends[request_id]

    async def _settle(self, data: Mapping[str, Any]) -> None:
        result = {name: data[name] for name in ("request_id", "status", "outputs", "error")}
        if data["status"] not in ("succeeded", "partial"):
            self._fail(result)
            return
        if self._plan.directory is not None:
            try:
                paths = await download(self._fetcher, data, self._plan.directory)
            except (HubUnavailableError, ForbiddenResultError) as error:
                self._fail({**result, "download_error": str(error)})
                sys.stderr.write(f"drover: {error}\n")
                return
            result["files"] = [str(path) for path in paths]
        self._display.count("succeeded")
        self._display.result(result)

    def _fail(self, result: Mapping[str, Any]) -> None:
        self.failures += 1
        self._display.count("not succeeded")
        self._display.result(result)

    async def _listen(self) -> None:
        async for event in self._producer.heard():
            ended = self._ends.get(str(event.get("subject") or event["data"].get("request_id")))
            if ended is None or event["id"] in self._heard:
                continue
            self._heard.add(event["id"])
            if not is_terminal(event):
                self._display.count(str(event["type"]).split(".")[2])
            elif not ended.done():
                ended.set_result(event)


async def submit_many(plan: Plan, requests: Sequence[Mapping[str, Any]]) -> int:
    """Sends them all; 0 unless one was followed that did not succeed."""
    display = Display(len(requests), follow=plan.follow, as_json=plan.as_json)
    failures = 0
    with display:
        try:
            async with Producer(plan.url) as producer, Fetcher(plan.hub) as fetcher:
                if plan.follow:
                    await producer.listen()
                batch = Batch(producer, plan, display, fetcher)
                await batch.run(requests)
                failures = batch.failures
        except BaseExceptionGroup as group:
            raise _first(group) from None
    display.summary()
    return 1 if failures else 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first; what the others said is the same, or a consequence."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TransientError):
        with suppress(TypeError):
            return type(error)(f"{error} {AGAIN}")
    return error
