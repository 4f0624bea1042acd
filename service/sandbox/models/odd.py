"""Models whose schemas hardly say anything, cannot be used, or have names that are hard to point at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.sandbox.commission import Commission, seed_of
from service.sandbox.models.offer import Json, Offer

COMFY: Final = "comfy-workflow-to-image"
LUMA: Final = "ray-3-text-to-video"
TURBO: Final = "sdxl-turbo-text-to-image"
PIXART: Final = "pixart-sigma-text-to-image"

COMFY_SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["6/text"],
    "properties": {
        "6/text": {"type": "string"},
        "3~cfg": {"type": "number", "minimum": 0},
        "~1": {"type": "integer"},
        "": {"type": "boolean"},
        "__class__": {"const": "KSampler"},
        "required": {"type": "array", "items": {"type": "string"}},
        "nullable": {"type": "boolean"},
        "$ref": {"type": "string"},
        "next": {"$ref": "#"},
        "seed": True,
    },
    "patternProperties": {"^x-": {"type": ["string", "number"]}},
}
"""Node inputs as names, with what is special in JSON pointers and in schemas; the workflow contains itself."""

LUMA_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string"},
        "loop": {"$ref": "https://schemas.luma.invalid/common.json#/definitions/loop"},
        "seed": {"type": "integer"},
    },
}
"""Refers to a document elsewhere: nobody fetches it, so the schema cannot be used."""

_PROMPT: Final[Json] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string"}, "loop": {"type": "boolean"}, "seed": {"type": "integer"}},
}


def _workflow(parameters: Mapping[str, Any]) -> Commission:
    prompt = parameters["6/text"]
    return Commission(media_type="image", suffix="png", prompt=prompt, seed=0, width=256, height=256)


def _still(parameters: Mapping[str, Any]) -> Commission:
    prompt, seed = parameters["prompt"], seed_of(parameters)
    return Commission(media_type="image", suffix="png", prompt=prompt, seed=seed, width=512, height=512)


def _film(parameters: Mapping[str, Any]) -> Commission:
    prompt, seed = parameters["prompt"], seed_of(parameters)
    return Commission(media_type="video", suffix="mp4", prompt=prompt, seed=seed, width=426, height=240, num_frames=24)


OFFERS: Final = (
    Offer(
        id=COMFY,
        name="Workflow: Nodes to Image",
        makes="image",
        takes=("text",),
        schema=COMFY_SCHEMA,
        read=_workflow,
    ),
    Offer(
        id=LUMA,
        name="Ray 3: Text to Video",
        makes="video",
        takes=("text",),
        schema=LUMA_SCHEMA,
        rules=_PROMPT,
        read=_film,
    ),
    Offer(
        id=TURBO,
        name="SDXL Turbo: Text to Image",
        makes="image",
        takes=("text",),
        schema=True,
        rules=_PROMPT,
        read=_still,
    ),
    Offer(
        id=PIXART,
        name="PixArt Sigma: Text to Image",
        makes="image",
        takes=("text",),
        schema={},
        rules=_PROMPT,
        read=_still,
    ),
)
