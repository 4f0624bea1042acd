"""What a generation is to look like: the parameters of any model, turned into one plain description of a picture."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.sandbox import schemas

MediaType = Literal["image", "video"]


class ParametersError(ValueError):
    """A generation cannot be made from its parameters. The message becomes its `error_message`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """One file to render. Sizes in pixels; the file is `num_frames / frames_per_second` seconds long."""

    media_type: MediaType
    suffix: Literal["mp4", "png", "jpeg"]
    prompt: str
    seed: int
    width: int
    height: int
    num_frames: int = 1
    frames_per_second: float = 24
    audio: bool = False
    quality: str = "high"


Reader = Callable[[Mapping[str, Any]], Commission]
"""Reads parameters that have passed the model's schema; raises ParametersError for what the schema lets through."""


def seed_of(parameters: Mapping[str, Any]) -> int:
    """The seed that was asked for, or a random one. A random one is not reported, as at the hub."""
    seed = parameters.get("seed")
    return secrets.randbits(31) if seed is None else int(seed)


def _preset_size(name: str) -> tuple[int, int]:
    try:
        return schemas.SIZE_PRESETS[name]
    except KeyError:
        raise ParametersError(f"resolution: {name!r} is none of {', '.join(schemas.SIZE_PRESETS)}") from None


def _ltx(parameters: Mapping[str, Any]) -> Commission:
    width, height = _preset_size(parameters.get("resolution", "landscape_16_9"))
    return Commission(
        media_type="video",
        suffix="mp4",
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
        num_frames=int(parameters.get("num_frames", 121)),
        frames_per_second=parameters.get("frames_per_second", 24),
        audio=parameters.get("generate_audio", True),
        quality=parameters.get("video_quality", "high"),
    )


def _still(parameters: Mapping[str, Any]) -> Commission:
    size = parameters.get("image_size", "landscape_4_3")
    width, height = _preset_size(size) if isinstance(size, str) else (int(size["width"]), int(size["height"]))
    return Commission(
        media_type="image",
        suffix=parameters.get("output_format", "png"),
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
    )


def _seedless(parameters: Mapping[str, Any]) -> Commission:
    width, height = schemas.ASPECT_SIZES[parameters.get("aspect_ratio", "16:9")]
    return Commission(
        media_type="video",
        suffix="mp4",
        prompt=parameters["prompt"],
        seed=secrets.randbits(31),
        width=width,
        height=height,
        num_frames=24 * int(parameters.get("duration", "5")),
    )


READERS: dict[str, Reader] = {schemas.LTX: _ltx, schemas.STILL: _still, schemas.SEEDLESS: _seedless}
"""Of the first models; those of `service.sandbox.models` bring their own."""
