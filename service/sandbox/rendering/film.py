"""Encodes a film: H.264 with AAC sound in an MP4 whose index stands in front."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service.sandbox.commission import Commission
from service.sandbox.rendering.picture import Picture
from service.sandbox.rendering.sound import RATE, blocks, chord

# Constant rate factors of x264: lower is finer and larger.
_FINENESS: Final = {"low": "36", "medium": "29", "high": "23", "maximum": "15"}
_AAC_BLOCK: Final = 1024
# One thread per film: the machine is shared with a second film, and the bytes do not depend on its cores.
_ENCODER: Final = {"preset": "ultrafast", "threads": "1"}


def write_film(commission: Commission, picture: Picture, path: Path, given_up: Callable[[], bool]) -> None:
    """Write exactly `num_frames` frames, and as much sound as they last, if sound is asked for."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = _video_stream(container, commission, picture)
        soundtrack = Soundtrack(container, commission) if commission.audio else None
        for number in range(commission.num_frames):
            if given_up():
                return
            frame = VideoFrame.from_ndarray(picture.draw(number), format="yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
            if soundtrack is not None:
                soundtrack.write_until((number + 1) / commission.frames_per_second)
        container.mux(video.encode(None))
        if soundtrack is not None:
            soundtrack.finish()


def _video_stream(container: OutputContainer, commission: Commission, picture: Picture) -> VideoStream:
    rate = Fraction(commission.frames_per_second).limit_denominator(1001)
    options = {**_ENCODER, "crf": _FINENESS[commission.quality]}
    video = container.add_stream("libx264", rate=rate, options=options)
    video.width, video.height, video.pix_fmt = picture.width, picture.height, "yuv420p"
    video.time_base = video.codec_context.time_base = 1 / rate
    return video


class Soundtrack:
    """Writes sound alongside the frames, so that the file interleaves them."""

    def __init__(self, container: OutputContainer, commission: Commission) -> None:
        self._container = container
        self._stream: AudioStream = container.add_stream("aac", rate=RATE, layout="mono")
        samples = round(commission.num_frames / commission.frames_per_second * RATE)
        self._blocks = blocks(chord(commission), samples, _AAC_BLOCK)
        self._written = 0

    def write_until(self, second: float) -> None:
        """Write whole blocks up to that time."""
        while self._written < second * RATE:
            block = next(self._blocks, None)
            if block is None:
                return
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, self._written
            self._written += block.shape[1]
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Flush the encoder."""
        self._container.mux(self._stream.encode(None))
