"""The moving picture of a prompt and a seed.

Two smooth patterns, drawn once from a hash of both, drift over each other in different directions; caption and frame
counter lie on top. A frame is then two copies and an addition for each plane, in the encoder's own colour layout
(YUV 4:2:0), so that nothing has to be converted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.sandbox.commission import Commission
from service.sandbox.rendering.lettering import Bitmap, Counter, caption

Plane: TypeAlias = NDArray[np.uint8]

_GREY = 128


def character(commission: Commission) -> np.random.Generator:
    """The source of everything that looks or sounds accidental: the same for the same prompt and seed."""
    digest = hashlib.sha256(f"{commission.seed}\n{commission.prompt}".encode(errors="replace")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


class Drift:
    """A pattern that moves by whole pixels a frame and comes round without a seam."""

    def __init__(self, source: np.random.Generator, height: int, width: int, low: float, high: float) -> None:
        self._height, self._width = height, width
        self._step = source.integers(-5, 6, 2) * 2 + 1
        rows, columns = np.ogrid[0 : 2 * np.pi : height * 1j, 0 : 2 * np.pi : width * 1j]
        field = np.zeros((height, width), np.float32)
        for _ in range(3):
            along, across = source.integers(-3, 4, 2)
            turned, phase = np.float32(along) * rows + np.float32(across) * columns, source.uniform(0, 2 * np.pi)
            field += np.sin(turned.astype(np.float32) + np.float32(phase))
        values = low + (high - low) * (field + 3) / 6
        # Laid out twice in both directions: every window of one period is then a plain slice.
        self._tiles = np.tile(values.astype(np.uint8), (2, 2))

    def at(self, frame: int, scale: int = 1) -> Plane:
        """The window of one frame (counted from 0), not copied."""
        top, left = self._step * frame // scale % (self._height, self._width)
        return self._tiles[top : top + self._height, left : left + self._width]


class Picture:
    """Draws the frames of one commission, each into the same buffer."""

    def __init__(self, commission: Commission) -> None:
        # 4:2:0 wants even sides; an image of an odd size is cut at the end.
        self.size = commission.width, commission.height
        self.width, self.height = (side + side % 2 for side in self.size)
        source = character(commission)
        self._light = [Drift(source, self.height, self.width, 8, 110) for _ in range(2)]
        self._colours = [Drift(source, self.height // 2, self.width // 2, 76, 180) for _ in range(2)]
        margin = max(4, self.width // 60) // 2 * 2
        self._caption = caption(commission.prompt, commission.seed, self.width - 2 * margin)
        self._counter = Counter(commission.num_frames, max(10, self.width // 50))
        self._margin = margin
        self.buffer = np.empty((self.height * 3 // 2, self.width), np.uint8)
        self._y = self.buffer[: self.height]
        chroma = self.buffer[self.height :].reshape(2, self.height // 2, self.width // 2)
        self._u, self._v = chroma[0], chroma[1]

    def draw(self, frame: int) -> Plane:
        """Frame number `frame`, counted from 0, as the planes Y, U and V below each other."""
        np.add(self._light[0].at(frame), self._light[1].at(frame), out=self._y)
        for plane, drift in zip((self._u, self._v), self._colours, strict=True):
            plane[...] = drift.at(frame, scale=2)
        self._stick(self._caption, self.height - self._margin - self._caption.shape[0])
        self._stick(self._counter.at(frame + 1), self._margin)
        return self.buffer

    def _stick(self, label: Bitmap, top: int) -> None:
        """Lay a label over the picture, and take the colour away beneath it."""
        top, left = max(0, top) // 2 * 2, self._margin
        label = label[: self.height - top, : self.width - left]
        rows, columns = label.shape
        self._y[top : top + rows, left : left + columns] = label
        for plane in (self._u, self._v):
            plane[top // 2 : (top + rows) // 2, left // 2 : (left + columns) // 2] = _GREY


def write_still(picture: Picture, path: Path, kind: str) -> None:
    """Write the first frame as an image file of that kind (`png` or `jpeg`)."""
    planes = picture.draw(0)
    width, height = picture.width, picture.height
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    full = [planes[:height], *(plane.repeat(2, axis=0).repeat(2, axis=1) for plane in chroma)]
    image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in full]).convert("RGB")
    image.crop((0, 0, *picture.size)).save(path, format=kind.upper())
