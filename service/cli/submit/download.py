"""Results on disk: each output under its request's id. What is there already is not fetched again."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from service.cli.submit.fetching import Fetcher, ForbiddenResultError
from service.domain.errors import ConfigurationError, HubUnavailableError

SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def make_directory(directory: Path) -> None:
    """ConfigurationError when there can be no such directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--download: the directory cannot be made ({error.strerror}).") from error


async def download(fetcher: Fetcher, data: Mapping[str, Any], directory: Path) -> list[Path]:
    """The files of all outputs that have a URL. HubUnavailableError, or ForbiddenResultError, names the request."""
    paths = []
    for output in data["outputs"]:
        if output["url"] is None:
            continue
        try:
            path = directory / f"{data['request_id']}-{output['index']}{_suffix(output)}"
            if not path.exists():
                await fetcher.fetch(output["url"], path)
        except ForbiddenResultError as error:
            raise ForbiddenResultError(f"A result of {data['request_id']} is not downloaded: {error}.") from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:  # the last: no URL at all
            told = f"{error.status}" if isinstance(error, aiohttp.ClientResponseError) else type(error).__name__
            raise HubUnavailableError(
                f"A result of {data['request_id']} could not be downloaded ({told}); its URL may have expired."
            ) from error
        paths.append(path)
    return paths


def _suffix(output: Mapping[str, Any]) -> str:
    suffix = Path(urlsplit(output["url"]).path).suffix
    if SUFFIX.fullmatch(suffix):
        return suffix
    return mimetypes.guess_extension(output["media_type"] or "") or {"video": ".mp4", "image": ".png"}.get(
        output["media_type"] or "", ".bin"
    )
