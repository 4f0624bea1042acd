"""Named SQL: `-- name: x` blocks of the files in `sql/`, read once, reviewed as SQL."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements() -> dict[str, str]:
    """Every named statement of the service; a name that comes twice is an error."""
    found: dict[str, str] = {}
    for file in sorted(files("service.postgres").joinpath("sql").iterdir(), key=lambda entry: entry.name):
        _, *parts = NAME.split(file.read_text("utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"The statement {name} of {file.name} has a namesake.")
            found[name] = text.strip()
    return found
