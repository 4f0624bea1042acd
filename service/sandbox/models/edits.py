"""Models that make an image from images: one URL, an array of them, or a URL and no prompt at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.sandbox.commission import Commission, seed_of
from service.sandbox.models.offer import Json, Offer
from service.sandbox.schemas import SIZE_PRESETS

KONTEXT: Final = "flux-kontext-pro-image-to-image"
SEEDREAM: Final = "seedream-4-edit"
UPSCALER: Final = "esrgan-image-upscaler"

_RATIOS: Final = {"1:1": (512, 512), "16:9": (640, 360), "9:16": (360, 640)}

KONTEXT_SCHEMA: Final[Json] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "FluxKontextInput",
    "type": "object",
    "required": ["prompt", "image_url"],
    "additionalProperties": False,
    "properties": {
        "prompt": {"type": "string", "minLength": 1, "ui:widget": "textarea", "examples": ["make it night"]},
        "image_url": {"type": "string", "format": "uri", "renderType": "image"},
        "aspect_ratio": {"anyOf": [{"enum": list(_RATIOS)}, {"type": "null"}], "default": None},
        "guidance_scale": {"type": "number", "minimum": 1, "exclusiveMaximum": 20, "default": 3.5},
        "safety_tolerance": {"type": "string", "enum": ["1", "2", "3", "4", "5", "6"], "default": 2},
        "output_format": {"enum": ["jpeg", "png"], "default": "jpeg"},
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 4294967295},
    },
    "basic": ["prompt", "image_url"],
}
"""Draft 7, closed; a nullable union and a list of types; a default that the schema itself refuses."""

SEEDREAM_SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["prompt", "image_urls"],
    "properties": {
        "prompt": {"type": "string", "x-order": 0},
        "image_urls": {
            "type": "array",
            "items": {"$ref": "#/$defs/ImageUrl"},
            "minItems": 1,
            "maxItems": 10,
            "uniqueItems": True,
            "x-order": 1,
        },
        "image_size": {
            "anyOf": [{"$ref": "#/$defs/ImageSize"}, {"enum": list(SIZE_PRESETS), "type": "string"}],
            "default": {"width": 512, "height": 512},
        },
        "max_images": {"type": "integer", "minimum": 1, "maximum": 6, "default": 1},
        "seed": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9999999}, {"type": "null"}], "default": None},
    },
    "$defs": {
        "ImageUrl": {"type": "string", "format": "uri"},
        "ImageSize": {
            "type": "object",
            "title": "ImageSize",
            "required": ["width", "height"],
            "properties": {"width": {"$ref": "#/$defs/Side"}, "height": {"$ref": "#/$defs/Side"}},
        },
        "Side": {"type": "integer", "minimum": 64, "maximum": 4096, "multipleOf": 8},
    },
}
"""Draft 2020-12: an array of URLs, a union of an object and presets through definitions of definitions."""

UPSCALER_SCHEMA: Final[Json] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "id": "#upscaler",
    "type": "object",
    "required": ["image_url"],
    "properties": {
        "image_url": {"type": "string", "format": "uri"},
        "scale": {"enum": [2, 4], "default": 2},
        "sharpness": {
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 1,
            "exclusiveMaximum": False,
        },
        "face_enhance": {"type": "boolean", "default": "no"},
    },
}
"""Draft 4: no prompt and no seed, and limits that are exclusive by a boolean beside them."""


def _kontext(parameters: Mapping[str, Any]) -> Commission:
    width, height = _RATIOS[parameters.get("aspect_ratio") or "1:1"]
    return Commission(
        media_type="image",
        suffix=parameters.get("output_format", "jpeg"),
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
    )


def _seedream(parameters: Mapping[str, Any]) -> Commission:
    size = parameters.get("image_size", {"width": 512, "height": 512})
    width, height = SIZE_PRESETS[size] if isinstance(size, str) else (int(size["width"]), int(size["height"]))
    return Commission(
        media_type="image",
        suffix="png",
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
    )


def _upscaled(parameters: Mapping[str, Any]) -> Commission:
    """The sandbox never fetches an image: what is upscaled is a square that its URL alone decides on."""
    side = 256 * int(parameters.get("scale", 2))
    image_url = parameters["image_url"][:200]
    return Commission(media_type="image", suffix="png", prompt=image_url, seed=0, width=side, height=side)


OFFERS: Final = (
    Offer(
        id=KONTEXT,
        name="FLUX Kontext Pro: Image to Image",
        makes="image",
        takes=("text", "image"),
        schema=KONTEXT_SCHEMA,
        read=_kontext,
    ),
    Offer(
        id=SEEDREAM,
        name="Seedream 4: Edit",
        makes="image",
        takes=("text", "image"),
        schema=SEEDREAM_SCHEMA,
        read=_seedream,
    ),
    Offer(
        id=UPSCALER,
        name="ESRGAN: Upscaler",
        makes="image",
        takes=("image",),
        schema=UPSCALER_SCHEMA,
        read=_upscaled,
    ),
)
