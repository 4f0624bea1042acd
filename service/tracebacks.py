"""Tracebacks for the log: where, and of what class. What an exception says is left out unless it is one of our own: a
library's words may quote the prompt, the row or the URL that it stumbled over."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import TextIO

from service.domain.errors import DroverError

LONGEST_CHAIN = 10
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def render(exc_info: ExcInfo) -> str:
    """The traceback, its causes first, as Python prints it but for the words."""
    told: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(told) < LONGEST_CHAIN:
        told.append("".join(traceback.format_list(traceback.extract_tb(error.__traceback__))) + _said(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich led to\n\n".join(reversed(told))


def render_to(file: TextIO, exc_info: ExcInfo) -> None:
    """The same, for the console's renderer."""
    file.write("\n" + render(exc_info))


def _said(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {error}" if isinstance(error, DroverError) else f"{name} (its text is left out)"
