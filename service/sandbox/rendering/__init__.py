"""Draws and encodes what a commission asks for. Needs the extra `sandbox` (numpy, av, Pillow): import it lazily."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.sandbox.commission import Commission
from service.sandbox.rendering.film import write_film
from service.sandbox.rendering.picture import Picture, write_still

__all__ = ["render"]


def render(commission: Commission, path: Path, given_up: Callable[[], bool]) -> None:
    """Write the commission's file; it is left unfinished once `given_up()` says so. Runs in a worker thread.

    The same prompt and seed give the same picture and sound, down to the bytes of every decoded frame.
    """
    if given_up():
        return
    picture = Picture(commission)
    if commission.media_type == "image":
        write_still(picture, path, commission.suffix)
    else:
        write_film(commission, picture, path, given_up)
