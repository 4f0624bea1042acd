"""Results are fetched over real sockets, and never from where a made-up URL would like to lead."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from service.cli.submit.download import download
from service.cli.submit.fetching import MOST_REDIRECTS, Fetcher, ForbiddenResultError
from service.domain.errors import HubUnavailableError

pytestmark = pytest.mark.asyncio
HUB = "https://hub.oxen.ai"
NOT_PUBLIC = "not public"


class Files:
    """A server on every address of this machine; what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A file, or whatever the path says."""
        self.asked.append(request.path_qs)
        if request.path == "/go":
            return web.Response(status=302, headers={"Location": request.query["to"]})
        if request.path == "/ring":
            return web.Response(status=307, headers={"Location": "/ring"})
        if request.path == "/long":
            return web.Response(body=b"x" * 5000)
        if request.path == "/gone":
            return web.Response(status=403)
        return web.Response(body=b"a file")

    def url(self, host: str, path: str = "/a.mp4") -> str:
        """Of something on it."""
        return f"http://{host}:{self.port}{path}"


@pytest_asyncio.fixture
async def files() -> AsyncIterator[Files]:
    """Up."""
    served = Files()
    app = web.Application()
    app.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    held = socket.socket(socket.AF_INET6)
    held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    held.bind(("::", 0))
    await web.SockSite(runner, held).start()
    served.port = held.getsockname()[1]
    yield served
    await runner.cleanup()


class Turning(AbstractResolver):
    """A name server that answers otherwise each time: what DNS rebinding is."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(  # the family is the answer's
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002
    ) -> list[ResolveResult]:
        """The next answer."""
        address = self._answers.pop(0)
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def refused(fetcher: Fetcher, url: str, path: Path) -> str:
    """Why it is not fetched; nothing of it is on disk."""
    with pytest.raises(ForbiddenResultError) as caught:
        await fetcher.fetch(url, path)
    assert not list(path.parent.iterdir())
    assert url not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "127.0.0.2"),  # noqa: S104
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    ],
)
async def test_this_machine_is_never_asked_however_it_is_called(files: Files, tmp_path: Path, host: str) -> None:
    async with Fetcher(HUB) as fetcher:
        with pytest.raises((ForbiddenResultError, aiohttp.InvalidURL)):  # the latter: no canonical spelling
            await fetcher.fetch(files.url(host), tmp_path / "a")
    assert (files.asked, list(tmp_path.iterdir())) == ([], [])


async def test_the_hub_itself_may_be_on_this_machine_and_another_port_of_it_may_not(
    files: Files, tmp_path: Path
) -> None:
    async with Fetcher(files.url("127.0.0.1", "")) as fetcher:
        await fetcher.fetch(files.url("127.0.0.1"), tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"a file"
    (tmp_path / "a").unlink()
    async with Fetcher(f"http://127.0.0.1:{files.port + 1}") as fetcher:
        assert NOT_PUBLIC in await refused(fetcher, files.url("127.0.0.1"), tmp_path / "a")
    assert len(files.asked) == 1


async def test_a_redirect_from_the_hub_to_this_machine_is_not_followed(files: Files, tmp_path: Path) -> None:
    async with Fetcher(files.url("127.0.0.1", "")) as fetcher:
        url = files.url("127.0.0.1", f"/go?to={files.url('localhost', '/secret')}")
        assert NOT_PUBLIC in await refused(fetcher, url, tmp_path / "a")
        await fetcher.fetch(files.url("127.0.0.1", "/go?to=/a.mp4"), tmp_path / "a")
    assert not any("secret" in path for path in files.asked if not path.startswith("/go"))


async def test_addresses_are_judged_when_they_are_connected_to_and_not_before(files: Files, tmp_path: Path) -> None:
    """127.0.0.2 stands for a public address here."""
    resolver = Turning("127.0.0.2", "127.0.0.1", "::ffff:127.0.0.1")
    async with Fetcher(HUB, permitted=lambda address: address == "127.0.0.2", resolver=resolver) as fetcher:
        await fetcher.fetch(files.url("first.example.org"), tmp_path / "a")
        (tmp_path / "a").unlink()
        for name in ("second.example.org", "third.example.org"):
            assert NOT_PUBLIC in await refused(fetcher, files.url(name), tmp_path / "a")
    assert files.asked == ["/a.mp4"]


async def test_each_step_of_a_redirect_is_judged(files: Files, tmp_path: Path) -> None:
    resolver = Turning("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.1")
    async with Fetcher(HUB, permitted=lambda address: address != "127.0.0.1", resolver=resolver) as fetcher:
        good = files.url("a.example.org", f"/go?to={files.url('b.example.org')}")
        await fetcher.fetch(good, tmp_path / "a")
        (tmp_path / "a").unlink()
        bad = files.url("c.example.org", f"/go?to={files.url('d.example.org', '/secret')}")
        assert NOT_PUBLIC in await refused(fetcher, bad, tmp_path / "a")
        for scheme in ("file:///etc/passwd", "ftp://127.0.0.2/x", "gopher://127.0.0.2/x"):
            odd = files.url("127.0.0.2", f"/go?to={scheme}")
            assert "http and https only" in await refused(fetcher, odd, tmp_path / "a")
        assert "more than" in await refused(fetcher, files.url("127.0.0.2", "/ring"), tmp_path / "a")
    assert files.asked.count("/ring") == MOST_REDIRECTS + 1
    assert not any(path.startswith("/secret") for path in files.asked)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "//127.0.0.1/x", ""])
async def test_only_http_and_https_are_spoken(url: str, tmp_path: Path) -> None:
    async with Fetcher(HUB) as fetcher:
        with pytest.raises(ForbiddenResultError, match="http and https only"):
            await fetcher.fetch(url, tmp_path / "a")


async def test_a_file_that_does_not_end_is_left(files: Files, tmp_path: Path) -> None:
    async with Fetcher(files.url("127.0.0.1", ""), most_bytes=1000) as fetcher:
        with pytest.raises(ForbiddenResultError, match="longer than 1,000 bytes"):
            await fetcher.fetch(files.url("127.0.0.1", "/long"), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == []


async def test_what_cannot_be_fetched_names_the_request_and_not_the_url(files: Files, tmp_path: Path) -> None:
    def ended(url: str) -> dict[str, Any]:
        return {"request_id": "r", "outputs": [{"index": 0, "url": url, "media_type": "video"}]}

    async with Fetcher(files.url("127.0.0.1", "")) as fetcher:
        for url, told in (
            (files.url("localhost", "/a.mp4?signature=tr0ub4dor"), NOT_PUBLIC),
            (files.url("127.0.0.1", "/gone?signature=tr0ub4dor"), "403"),
            ("http://[tr0ub4dor/", "could not be downloaded"),
            ("http://127.0.0.1:99999/tr0ub4dor", "could not be downloaded"),
        ):
            with pytest.raises((ForbiddenResultError, HubUnavailableError), match=told) as caught:
                await download(fetcher, ended(url), tmp_path)
            assert (str(caught.value).startswith("A result of r "), "tr0ub4dor" in str(caught.value)) == (True, False)
        odd = ended(files.url("127.0.0.1", f"/a.{'x' * 400}"))
        assert [path.name for path in await download(fetcher, odd, tmp_path)] == ["r-0.mp4"]
