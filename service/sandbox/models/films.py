"""Models that make a video: between two frames, shot by shot, or from a schema that names itself by a remote URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.sandbox.commission import Commission, seed_of
from service.sandbox.models.offer import Json, Offer

WAN: Final = "wan-2-2-first-last-frame-to-video"
VIDU: Final = "vidu-q3-multi-shot-video"
HAILUO: Final = "hailuo-2-3-image-to-video"

_HEIGHTS: Final = {"240p": (426, 240), "480p": (854, 480), "720p": (1280, 720)}

WAN_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["prompt", "start_image_url"],
    "properties": {
        "prompt": {"type": "string"},
        "start_image_url": {"type": "string", "format": "uri", "title": "First frame"},
        "end_image_url": {"type": "string", "format": "uri", "nullable": True, "title": "Last frame"},
        "num_frames": {"type": "integer", "minimum": 17, "maximum": 161, "default": 81},
        "frames_per_second": {"type": "integer", "minimum": 4, "maximum": 60, "default": 16},
        "resolution": {"type": "string", "enum": list(_HEIGHTS), "default": "480p", "nullable": True},
        "guidance_scale": {
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 10,
            "exclusiveMaximum": False,
        },
        "seed": {"type": "integer", "nullable": True, "description": "Random when null."},
    },
}
"""OpenAPI 3.0, and nothing says so: `nullable`, and limits that are exclusive by a boolean, as in draft 4."""

WAN_RULES: Final[Json] = {
    **WAN_SCHEMA,
    "properties": {
        **WAN_SCHEMA["properties"],
        "end_image_url": {"type": ["string", "null"], "format": "uri"},
        "resolution": {"enum": [*_HEIGHTS, None]},
        "guidance_scale": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
        "seed": {"type": ["integer", "null"]},
    },
}

VIDU_SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "multi_prompt": {
            "type": "array",
            "minItems": 1,
            "maxItems": 6,
            "items": {
                "type": "object",
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string", "maxLength": 512},
                    "duration": {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 15}, {"const": "auto"}]},
                },
                "additionalProperties": False,
            },
        },
        "start_image_url": {"type": "string", "format": "uri"},
        "end_image_url": {"type": "string", "format": "uri"},
        "resolution": {"enum": list(_HEIGHTS), "default": "240p"},
        "audio": {"type": "boolean"},
        "voice": {"type": "string"},
    },
    "oneOf": [{"required": ["prompt"]}, {"required": ["multi_prompt"]}],
    "dependentRequired": {"end_image_url": ["start_image_url"]},
    "if": {"required": ["voice"]},
    "then": {"required": ["audio"], "properties": {"audio": {"const": True}}},
    "unevaluatedProperties": False,
}
"""Draft 2019-09: shots in an array, either them or a prompt, conditions among parameters; no seed."""

HAILUO_SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://schemas.hailuo.invalid/2.3/image-to-video.json",
    "type": "object",
    "required": ["image_url"],
    "properties": {
        "prompt": {"type": "string", "default": None},
        "image_url": {"$ref": "#uri"},
        "duration": {"$ref": "image-to-video.json#/$defs/duration"},
        "prompt_optimizer": {"type": "boolean", "default": True},
        "seed": {"$ref": "#/$defs/seed"},
    },
    "$defs": {
        "uri": {"$anchor": "uri", "type": "string", "format": "uri"},
        "duration": {"enum": [1, 6, 10, "6", "10"]},
        "seed": {"oneOf": [{"type": "integer", "exclusiveMinimum": 99, "maximum": 999}, {"type": "null"}]},
    },
}
"""Names itself by a URL that nobody may fetch; its references lead by that name, by an anchor and by a pointer."""


def _wan(parameters: Mapping[str, Any]) -> Commission:
    width, height = _HEIGHTS[parameters.get("resolution") or "480p"]
    return Commission(
        media_type="video",
        suffix="mp4",
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
        num_frames=int(parameters.get("num_frames", 81)),
        frames_per_second=parameters.get("frames_per_second", 16),
    )


def _vidu(parameters: Mapping[str, Any]) -> Commission:
    width, height = _HEIGHTS[parameters.get("resolution", "240p")]
    shots = parameters.get("multi_prompt") or [{"prompt": parameters["prompt"]}]
    durations = [shot.get("duration", "auto") for shot in shots]
    seconds = sum(1 if duration == "auto" else int(duration) for duration in durations)
    return Commission(
        media_type="video",
        suffix="mp4",
        prompt=" / ".join(shot["prompt"] for shot in shots),
        seed=0,
        width=width,
        height=height,
        num_frames=24 * seconds,
        audio=parameters.get("audio", False),
    )


def _hailuo(parameters: Mapping[str, Any]) -> Commission:
    width, height = _HEIGHTS["240p"]
    return Commission(
        media_type="video",
        suffix="mp4",
        prompt=parameters.get("prompt", ""),
        seed=seed_of(parameters),
        width=width,
        height=height,
        num_frames=24 * int(parameters.get("duration", 6)),
    )


OFFERS: Final = (
    Offer(
        id=WAN,
        name="Wan 2.2: First and Last Frame to Video",
        makes="video",
        takes=("text", "image"),
        schema=WAN_SCHEMA,
        rules=WAN_RULES,
        read=_wan,
    ),
    Offer(
        id=VIDU,
        name="Vidu Q3: Multi-Shot Video",
        makes="video",
        takes=("text", "image"),
        schema=VIDU_SCHEMA,
        read=_vidu,
    ),
    Offer(
        id=HAILUO,
        name="Hailuo 2.3: Image to Video",
        makes="video",
        takes=("image", "text"),
        schema=HAILUO_SCHEMA,
        read=_hailuo,
    ),
)
