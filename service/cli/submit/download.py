"""Results on disk: each output under its request's id. What is there already is not fetched again."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from service.domain.errors import ConfigurationError, HubUnavailableError

PIECE_BYTES = 1 << 20
IDLE_TIMEOUT_S = 60.0


def make_directory(directory: Path) -> None:
    """ConfigurationError when there can be no such directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--download: the directory cannot be made ({error.strerror}).") from error


async def download(session: aiohttp.ClientSession, data: Mapping[str, Any], directory: Path) -> list[Path]:
    """The files of all outputs that have a URL. HubUnavailableError names the request, since the others go on."""
    paths = []
    for output in data["outputs"]:
        if output["url"] is None:
            continue
        path = directory / f"{data['request_id']}-{output['index']}{_suffix(output)}"
        if not path.exists():
            try:
                await _fetch(session, output["url"], path)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                told = f"{error.status}" if isinstance(error, aiohttp.ClientResponseError) else type(error).__name__
                raise HubUnavailableError(
                    f"A result of {data['request_id']} could not be downloaded ({told}); its URL may have expired."
                ) from error
        paths.append(path)
    return paths


async def _fetch(session: aiohttp.ClientSession, url: str, path: Path) -> None:
    """Under another name until it is whole."""
    unfinished = path.with_name(path.name + ".part")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=IDLE_TIMEOUT_S)
    async with session.get(url, timeout=timeout) as response:
        response.raise_for_status()
        with unfinished.open("wb") as file:
            async for chunk in response.content.iter_chunked(PIECE_BYTES):
                file.write(chunk)
    unfinished.rename(path)


def _suffix(output: Mapping[str, Any]) -> str:
    suffix = Path(urlsplit(output["url"]).path).suffix
    if suffix:
        return suffix
    return mimetypes.guess_extension(output["media_type"] or "") or {"video": ".mp4", "image": ".png"}.get(
        output["media_type"] or "", ".bin"
    )
