"""Models that make an image from text: unions with a discriminator, arrays of objects, everything by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.sandbox.commission import Commission, seed_of
from service.sandbox.models.offer import Json, Offer

IDEOGRAM: Final = "ideogram-3-text-to-image"
QWEN: Final = "qwen-image-lora"
IMAGEN: Final = "imagen-4-text-to-image"

_RATIOS: Final = {"1:1": (512, 512), "4:3": (640, 480), "3:4": (480, 640)}
STYLES: Final = [f"STYLE_{number:03}" for number in range(400)]

IDEOGRAM_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string"},
        "style_preset": {"type": "string", "enum": STYLES},
        "color_palette": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["kind", "name"],
                    "properties": {"kind": {"const": "preset"}, "name": {"enum": ["EMBER", "FRESH", "JUNGLE"]}},
                },
                {
                    "type": "object",
                    "required": ["kind", "members"],
                    "properties": {
                        "kind": {"const": "members"},
                        "members": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["rgb"],
                                "properties": {
                                    "rgb": {"type": "string", "pattern": "^#[0-9A-Fa-f]{6}$"},
                                    "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                                },
                            },
                        },
                    },
                },
            ],
            "discriminator": {"propertyName": "kind"},
        },
        "style_codes": {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "pattern": "^[0-9A-Fa-f]{8}$"}, "maxItems": 4},
                {"type": "null"},
            ]
        },
        "num_steps": {"enum": [10, 20, "turbo", None]},
        "image_url": {"type": ["string", "null"], "format": "uri"},
        "image_weight": {"type": "integer", "minimum": 1, "maximum": 100},
        "seed": {"$ref": "#/$defs/Seed"},
    },
    "dependentRequired": {"image_weight": ["image_url"]},
    "$defs": {"Seed": {"allOf": [{"type": "integer"}, {"minimum": 0}, {"maximum": 2147483647}]}},
}
"""No `$schema`: a union by discriminator, patterns, 400 values of an enum, an enum of mixed types, a dependency."""

QWEN_SCHEMA: Final[Json] = {
    "$schema": "http://json-schema.org/draft-07/schema",
    "type": "object",
    "required": ["prompt", "negative_prompt"],
    "properties": {
        "prompt": {"type": "string"},
        "negative_prompt": {"type": ["string", "null"], "description": "Required, and may be null."},
        "loras": {"type": "array", "items": {"$ref": "#/definitions/LoRA"}, "maxItems": 3, "default": []},
        "aspect_ratio": {"$ref": "#/definitions/Ratio", "default": "1:1"},
        "seed": {"type": "number", "multipleOf": 1, "minimum": -1, "description": "-1: at random"},
    },
    "definitions": {
        "LoRA": {
            "type": "object",
            "required": ["path"],
            "properties": {
                "path": {"type": "string", "format": "uri"},
                "scale": {"type": "number", "minimum": 0, "maximum": 4, "default": 1},
            },
            "additionalProperties": False,
        },
        "Ratio": {"type": "string", "enum": list(_RATIOS)},
    },
}
"""Draft 7: an array of objects by `definitions`, and a parameter that is required and may be null."""

IMAGEN_SCHEMA: Final[Json] = {
    "$ref": "#/components/schemas/Imagen4%20Input",
    "components": {
        "schemas": {
            "Imagen4 Input": {
                "type": "object",
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string", "maxLength": 2000},
                    "aspect_ratio": {"allOf": [{"$ref": "#/components/schemas/Ratio"}], "nullable": True},
                    "image_size": {"type": "string", "enum": ["1K", "2K"], "nullable": True},
                    "seed": {"type": "integer", "nullable": True, "minimum": 1, "maximum": 1000, "x-order": 9},
                },
            },
            "Ratio": {"type": "string", "enum": list(_RATIOS)},
        }
    },
}
"""A piece of an OpenAPI 3.0 document, as pydantic and FastAPI write it: all of it behind one reference."""

IMAGEN_RULES: Final[Json] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "maxLength": 2000},
        "aspect_ratio": {"enum": [*_RATIOS, None]},
        "image_size": {"enum": ["1K", "2K", None]},
        "seed": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000},
    },
}


def _still(parameters: Mapping[str, Any]) -> Commission:
    width, height = _RATIOS[parameters.get("aspect_ratio") or "1:1"]
    return Commission(
        media_type="image",
        suffix="png",
        prompt=parameters["prompt"],
        seed=seed_of(parameters),
        width=width,
        height=height,
    )


OFFERS: Final = (
    Offer(
        id=IDEOGRAM,
        name="Ideogram 3: Text to Image",
        makes="image",
        takes=("text", "image"),
        schema=IDEOGRAM_SCHEMA,
        read=_still,
    ),
    Offer(id=QWEN, name="Qwen Image: LoRA", makes="image", takes=("text",), schema=QWEN_SCHEMA, read=_still),
    Offer(
        id=IMAGEN,
        name="Imagen 4: Text to Image",
        makes="image",
        takes=("text",),
        schema=IMAGEN_SCHEMA,
        rules=IMAGEN_RULES,
        read=_still,
    ),
)
