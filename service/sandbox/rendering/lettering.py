"""Text as small grey bitmaps, drawn once per film and then only copied."""

from __future__ import annotations

import textwrap
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Bitmap: TypeAlias = NDArray[np.uint8]
"""Rows of grey values; both sides are even, so that a bitmap can lie on the grid of the colour planes."""

_PAPER = 18
_INK = 235


def _even(number: float) -> int:
    return (int(number) + 1) // 2 * 2


def lettering(text: str, size: int, margin: int) -> Bitmap:
    """Lines of light text on dark paper, letters `size` pixels high, with a margin of paper around."""
    font = ImageFont.load_default(size)
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = probe.multiline_textbbox((0, 0), text, font=font)
    image = Image.new("L", (_even(right - left + 2 * margin), _even(bottom - top + 2 * margin)), _PAPER)
    ImageDraw.Draw(image).multiline_text((margin - left, margin - top), text, fill=_INK, font=font)
    return np.asarray(image)


def caption(prompt: str, seed: int, width: int) -> Bitmap:
    """The prompt, wrapped to three lines of at most `width` pixels, and below it the seed."""
    size = max(10, width // 44)
    # An average letter of the built-in face is about half as wide as it is high.
    columns = max(12, int(width / size / 0.56) - 4)
    words = " ".join(prompt.split())
    lines = textwrap.wrap(words, columns, max_lines=3, placeholder=" …", break_on_hyphens=False)
    return lettering("\n".join([*lines, f"seed {seed}"]), size, size // 2)[:, :width]


class Counter:
    """Draws `frame/total`, the digits cut from one strip."""

    def __init__(self, total: int, size: int) -> None:
        glyphs = [lettering(glyph, size, size // 8) for glyph in "0123456789/"]
        height, width = (max(side) for side in zip(*(glyph.shape for glyph in glyphs), strict=True))
        self._glyphs = [_centred(glyph, height, width) for glyph in glyphs]
        self._digits = len(str(total))
        self._total = self._compose(f"/{total}")

    def at(self, frame: int) -> Bitmap:
        """The counter of one frame, counted from 1."""
        return np.hstack([self._compose(str(frame).zfill(self._digits)), self._total])

    def _compose(self, text: str) -> Bitmap:
        return np.hstack([self._glyphs[10 if glyph == "/" else int(glyph)] for glyph in text])


def _centred(glyph: Bitmap, height: int, width: int) -> Bitmap:
    cell = np.full((height, width), _PAPER, np.uint8)
    top, left = (height - glyph.shape[0]) // 2, (width - glyph.shape[1]) // 2
    cell[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return cell
