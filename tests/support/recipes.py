"""Somebody who runs the producer recipes from a shell."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.local import node
from tests.support.servers import REPOSITORY, Servers

RECIPES = REPOSITORY / "contracts" / "recipes"


@dataclass
class Running:
    """A recipe's process; its lines as they come."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def printed(self, wanted: Callable[[str], bool]) -> str:
        """Reads on until a line that is wanted."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip())
                if wanted(line):
                    return line.rstrip()
        raise AssertionError(f"it ended, and printed {self.lines}")

    async def ended(self) -> tuple[int, list[str], str]:
        """Exit code, all lines printed, what it told on stderr."""
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, [*self.lines, *out.decode().splitlines()], err.decode()


class Stranger:
    """Somebody with a shell, the repository, and the addresses that `stack.py env` prints."""

    def __init__(self, servers: Servers, amqp_url: str, folder: Path) -> None:
        self._folder = folder
        self._started: list[asyncio.subprocess.Process] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DROVER_", "OXEN_"))}
        self._environment = {
            **inherited,
            "DROVER_AMQP_URL": amqp_url,
            "DROVER_LOCAL_RABBIT_MANAGEMENT_URL": servers.management_url,
            "RABBIT_VHOST": vhost(amqp_url),  # a test has its own
        }

    async def start(self, *argv: str) -> Running:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=REPOSITORY,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._started.append(process)
        return Running(process)

    async def leave(self) -> None:
        """Ends what a failed test has left running, with what that has started."""
        for process in self._started:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def begin(self, recipe: str, *arguments: str) -> Running:
        """Starts a recipe, named with its options."""
        name, *options = recipe.split()
        if name.endswith(".py"):
            return await self.start(sys.executable, str(RECIPES / name), *options, *arguments)
        if name.endswith(".sh"):
            return await self.start("bash", str(RECIPES / name), *options, *arguments)
        copy = self._folder / name
        if not copy.exists():
            if not node.installed():
                pytest.fail("the npm packages are missing: run `python3 deploy/local/install.py tools`")
            (self._folder / "node_modules").symlink_to(node.FOLDER / "node_modules")
            copy.write_bytes((RECIPES / name).read_bytes())
        return await self.start("node", str(copy), *options, *arguments)

    async def run(self, recipe: str, *arguments: str) -> tuple[int, list[str], str]:
        """Runs a recipe to its end."""
        return await (await self.begin(recipe, *arguments)).ended()


def vhost(amqp_url: str) -> str:
    """The name of the virtual host in a URL."""
    return urlsplit(amqp_url).path[1:]
