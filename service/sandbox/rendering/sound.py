"""The sound of a prompt and a seed: a chord that swells and fades, once around every two seconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.sandbox.commission import Commission
from service.sandbox.rendering.picture import character

RATE = 48_000
"""Samples a second."""

_LOOP_S = 2
_CHORDS = ((4, 5, 6), (6, 8, 9), (10, 12, 15), (2, 3, 4))


def chord(commission: Commission) -> NDArray[np.float32]:
    """Two seconds of sound, as samples from -1 to 1, that join on to themselves."""
    source = character(commission)
    root = int(source.integers(18, 40))
    time = np.arange(_LOOP_S * RATE) / RATE
    tones = (np.sin(2 * np.pi * root * partial * time) for partial in _CHORDS[source.integers(len(_CHORDS))])
    swell = 0.6 - 0.4 * np.cos(2 * np.pi * time / _LOOP_S)
    loop: NDArray[np.float32] = (0.1 * swell * sum(tones)).astype(np.float32)
    return loop


def blocks(loop: NDArray[np.float32], samples: int, size: int) -> Iterator[NDArray[np.float32]]:
    """`samples` samples of the endless loop, in blocks of `size`, each of shape (1, n); the last may be shorter."""
    endless = np.concatenate([loop, loop[:size]])
    for start in range(0, samples, size):
        offset = start % len(loop)
        yield endless[offset : offset + min(size, samples - start)].reshape(1, -1)
