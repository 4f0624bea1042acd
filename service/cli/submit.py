"""Send a request as a producer would, and follow it."""

from __future__ import annotations

import asyncio
import json as jsonlib
import mimetypes
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.status import Status
from uuid_utils.compat import uuid7

from service.domain.errors import ConfigurationError, HubUnavailableError
from service.domain.messages import DEFAULT_MODEL
from service.rabbit.producer import Producer
from service.settings import load_settings
from service.wire.envelope import REQUEST_ID

SUCCEEDED = "drover.generation.succeeded.v1"


def submit(
    *,
    prompt: str | None = None,
    model: str = DEFAULT_MODEL,
    param: Annotated[tuple[str, ...], Parameter(name=["--param", "-p"], negative=())] = (),
    input_file: Annotated[Path | None, Parameter(name="--input")] = None,
    request_id: str | None = None,
    num_generations: int = 1,
    wait: bool = False,
    timeout: float = 1800.0,
    download: Path | None = None,
    json: bool = False,
) -> int:
    """Send one generation request over the bus; with --wait, follow it to its end.

    drover submit --prompt "a lighthouse at dawn" --param num_frames=121 --wait --download .

    Parameters
    ----------
    prompt
        The prompt; short for --param prompt=...
    model
        The hub's id of the model.
    param
        A parameter of the model as name=value; the value is read as JSON where it is JSON, else as text.
    input_file
        A JSON file with all parameters; "-" reads standard input. --prompt and --param override what is in it.
    request_id
        The idempotency key; a new one unless given.
    num_generations
        How many outputs, 1 to 4.
    wait
        Follow the request until it ended. Exit code 1 unless it succeeded.
    timeout
        Seconds to wait at most.
    download
        A directory for the results; implies --wait.
    json
        Print the events as JSON lines.
    """
    settings = load_settings(hub=False)
    if request_id is not None and not REQUEST_ID.fullmatch(request_id):
        raise ConfigurationError("--request-id must be 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
    if timeout <= 0:
        raise ConfigurationError("--timeout must be more than 0 seconds.")
    request = {
        "request_id": request_id or str(uuid7()),
        "model": model,
        "input": _input(prompt, param, input_file),
        "num_generations": num_generations,
    }
    follow = wait or download is not None
    if download is not None:
        try:
            download.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--download: the directory cannot be made ({error.strerror}).") from error
    return asyncio.run(
        _submit(settings.amqp_url.get_secret_value(), request, timeout, download, follow=follow, as_json=json)
    )


def _input(prompt: str | None, params: Sequence[str], file: Path | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
            values = jsonlib.loads(text)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"--input cannot be read as JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigurationError("--input must be a JSON object of parameters.")
    for pair in params:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigurationError("--param takes name=value.")
        try:
            values[name] = jsonlib.loads(value)
        except ValueError:
            values[name] = value
    if prompt is not None:
        values["prompt"] = prompt
    return values


async def _submit(
    url: str, request: dict[str, Any], timeout_s: float, download: Path | None, *, follow: bool, as_json: bool
) -> int:
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
                f"{request_id} did not end within {timeout_s:g} s; it goes on, and its event will come."
            ) from None
    if download is not None and last["type"] == SUCCEEDED:
        await _download(last["data"], download, as_json=as_json)
    return 0 if last["type"] == SUCCEEDED else 1


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


async def _download(data: dict[str, Any], directory: Path, *, as_json: bool) -> None:
    async with aiohttp.ClientSession() as session:
        for output in data["outputs"]:
            if output["url"] is None:
                continue
            path = directory / f"{data['request_id']}-{output['index']}{_suffix(output)}"
            try:
                async with session.get(output["url"]) as response:
                    response.raise_for_status()
                    with path.open("wb") as file:
                        async for chunk in response.content.iter_chunked(1 << 20):
                            file.write(chunk)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise HubUnavailableError(f"The result could not be downloaded: {error}") from error
            _show({"file": str(path)}, as_json=as_json)


def _suffix(output: dict[str, Any]) -> str:
    suffix = Path(urlsplit(output["url"]).path).suffix
    if suffix:
        return suffix
    return mimetypes.guess_extension(output["media_type"] or "") or {"video": ".mp4", "image": ".png"}.get(
        output["media_type"] or "", ".bin"
    )


def _show(document: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        for name, value in document.items():
            Console().print(f"{name}: {value}", highlight=False, soft_wrap=True)
