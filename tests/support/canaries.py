"""Values that must not turn up where nobody may read them, and where to look."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from tests.support.servers import REPOSITORY


class Canaries:
    """Each name has a value of its own, which is made when it is first asked for. `allowed` may turn up anywhere."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}
        self._run = uuid4().hex[:8]

    def __getitem__(self, name: str) -> str:
        return self.planted.setdefault(name, f"zq{name}{self._run}")

    def found_in(self, text: str) -> set[str]:
        """The names of those that are in it, however they are written."""
        return {name for name, value in self.planted.items() if any(form in text for form in _forms(value))}


def _forms(value: str) -> Iterable[str]:
    yield value
    yield quote(value, safe="")
    for before in ("", ":", "::"):  # base64 depends on where in a group of three it begins; its ends, on neighbours
        yield base64.b64encode((before + value).encode()).decode()[4:-4]


class ServersLogs:
    """What the local stack's servers write to their logs from now on; nothing where they are somebody else's."""

    def __init__(self) -> None:
        folders = (REPOSITORY / ".local" / "log", REPOSITORY / ".local" / "rabbitmq" / "log")
        self._begun = {file: file.stat().st_size for folder in folders for file in folder.glob("*.log")}

    def read(self) -> dict[str, str]:
        """By the name of the file."""
        return {file.name: _from(file, size) for file, size in self._begun.items()}


def _from(file: Path, size: int) -> str:
    with file.open("rb") as log:
        log.seek(size)
        return log.read().decode(errors="replace")
