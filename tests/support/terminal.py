"""The command line at a terminal."""

from __future__ import annotations

import asyncio
import os
import pty

from tests.support.command import start


async def at_a_terminal(*arguments: str, typed: str = "", **variables: str) -> tuple[int | None, str]:
    """`drover ...` with a terminal for all of its streams; exit code, what is on the screen."""
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    process = await start(*arguments, variables={"TERM": "xterm", **variables}, **streams)
    os.close(slave)
    os.write(master, typed.encode())
    screen = await asyncio.to_thread(read_all, master)
    code = await asyncio.wait_for(process.wait(), 30)
    os.close(master)
    return code, screen


def read_all(descriptor: int) -> str:
    """Until the last one who writes has gone, which a terminal tells by an error."""
    read = b""
    try:
        while more := os.read(descriptor, 65536):
            read += more
    except OSError:
        pass
    return read.decode()
