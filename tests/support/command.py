"""The command line as a process."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any


async def drover(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Runs the command without a terminal; exit code, stdout, stderr."""
    process = await start(*arguments, variables=variables, stdin=asyncio.subprocess.DEVNULL)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def start(*arguments: str, variables: dict[str, str], **streams: Any) -> asyncio.subprocess.Process:
    """Begins the command in an environment of these variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DROVER_", "OXEN_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        *arguments,
        env={**inherited, "COLUMNS": "200", **variables},
        **{"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **streams},
    )


def one_sentence(told: str) -> bool:
    """One line for people: no traceback, nothing of a library's."""
    return told.startswith("drover: ") and told.count("\n") == 1 and "Traceback" not in told
