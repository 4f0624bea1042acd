"""The models that the sandbox offers, as the hub's models endpoint describes them.

The first is the model page's own, word for word. The others have other shapes on purpose: an image model with a union
and an array among its parameters, a video model that takes no `seed`, and a chat model, which the queue refuses.
"""

from __future__ import annotations

from typing import Any, Final

LTX: Final = "ltx-2-3-quality-text-to-video"
STILL: Final = "flux-2-dev-text-to-image"
SEEDLESS: Final = "kling-2-1-standard-image-to-video"
CHAT: Final = "llama-3-3-70b-instruct"

NEGATIVE_PROMPT: Final = (
    "color distortion, overexposure, static, blurry details, subtitles, style, artwork, painting, frame, still, "
    "dim overall tone, worst quality, low quality, JPEG compression artifacts, ugly, mutilated, extra fingers, "
    "poorly drawn hands, poorly drawn face, deformed, disfigured, malformed limbs, fused fingers, "
    "motionless frame, cluttered background, three legs, crowded background, walking backwards"
)

SIZE_PRESETS: Final = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (720, 1280),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1280, 720),
}
"""Width and height in pixels of the family's size presets."""

ASPECT_SIZES: Final = {"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (720, 720)}
"""Width and height in pixels of the aspect ratios of the model without a seed."""

Json = dict[str, Any]


def _schema(required: list[str], basic: list[str], properties: dict[str, Json]) -> Json:
    return {
        "type": "object",
        "required": required,
        "properties": {name: {**rest, "x-order": order} for order, (name, rest) in enumerate(properties.items())},
        "basic": basic,
    }


LTX_SCHEMA: Final = _schema(
    ["prompt"],
    ["prompt", "num_frames", "resolution"],
    {
        "prompt": {"type": "string", "description": "The prompt to generate the video from."},
        "num_frames": {
            "type": "integer",
            "minimum": 9,
            "maximum": 481,
            "default": 121,
            "description": "The number of frames to generate.",
        },
        # A plain string without an enum, as on the page: an unknown preset is found out late.
        "resolution": {
            "type": "string",
            "default": "landscape_16_9",
            "description": "The size of the generated video.",
        },
        "frames_per_second": {
            "type": "number",
            "minimum": 1,
            "maximum": 60,
            "default": 24,
            "description": "Frames per second of the generated video.",
        },
        "generate_audio": {
            "type": "boolean",
            "default": True,
            "description": "Whether to include audio in the returned video. "
            "When disabled, the final MP4 is returned without an audio track.",
        },
        "video_quality": {
            "type": "string",
            "enum": ["low", "medium", "high", "maximum"],
            "default": "high",
            "description": "The quality preset of the generated video.",
        },
        "negative_prompt": {
            "type": "string",
            "default": NEGATIVE_PROMPT,
            "description": "The negative prompt to steer generation away from.",
            "renderType": "textarea",
        },
        "seed": {
            "type": "integer",
            "description": "Random seed for reproducibility. If None, a random seed is chosen.",
        },
    },
)

STILL_SCHEMA: Final = _schema(
    ["prompt"],
    ["prompt", "image_size"],
    {
        "prompt": {"type": "string", "description": "The prompt to generate the image from."},
        "image_size": {
            "anyOf": [
                {"type": "string", "enum": list(SIZE_PRESETS)},
                {
                    "type": "object",
                    "required": ["width", "height"],
                    "properties": {
                        "width": {"type": "integer", "minimum": 64, "maximum": 2048},
                        "height": {"type": "integer", "minimum": 64, "maximum": 2048},
                    },
                },
            ],
            "default": "landscape_4_3",
            "description": "The size of the image: a preset, or a width and a height in pixels.",
        },
        "reference_images": {
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "maxItems": 4,
            "description": "Images to take the style from.",
        },
        "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 28},
        "guidance_scale": {"type": "number", "minimum": 0, "maximum": 20, "default": 3.5},
        "output_format": {"type": "string", "enum": ["png", "jpeg"], "default": "png"},
        "seed": {"type": "integer", "description": "Random seed for reproducibility."},
    },
)

SEEDLESS_SCHEMA: Final = _schema(
    ["prompt", "image_url"],
    ["prompt", "image_url", "duration"],
    {
        "prompt": {"type": "string", "description": "What should happen in the video."},
        "image_url": {
            "type": "string",
            "format": "uri",
            "description": "The first frame. The sandbox never fetches it.",
        },
        "duration": {"type": "string", "enum": ["5", "10"], "default": "5", "description": "Seconds."},
        "aspect_ratio": {"type": "string", "enum": list(ASPECT_SIZES), "default": "16:9"},
        "negative_prompt": {"type": "string", "default": "blur, distort, and low quality"},
        "cfg_scale": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
    },
)


def _model(name: str, display_name: str, description: str, endpoint: str, **rest: Json) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": 1_772_000_000,
        "owned_by": "oxen",
        "display_name": display_name,
        "description": description,
        "endpoint": endpoint,
        **rest,
    }


MODEL_OBJECTS: Final[tuple[Json, ...]] = (
    _model(
        LTX,
        "LTX 2.3 Quality: Text to Video",
        "High-quality text-to-video with audio",
        "/videos/generate",
        capabilities={"input": ["text"], "output": ["video"]},
        pricing={
            "method": "per_video_output_second",
            "cost_per_second": 0.08,
            "cost_per_second_with_audio": 0.1,
            "cost_per_second_high_res": 0.16,
        },
        json_request_schema=LTX_SCHEMA,
    ),
    _model(
        STILL,
        "FLUX.2 Dev: Text to Image",
        "Images from text",
        "/images/generate",
        capabilities={"input": ["text", "image"], "output": ["image"]},
        pricing={"method": "per_image", "cost_per_image": 0.025},
        json_request_schema=STILL_SCHEMA,
    ),
    _model(
        SEEDLESS,
        "Kling 2.1 Standard: Image to Video",
        "Brings an image to life; takes no seed",
        "/videos/generate",
        capabilities={"input": ["text", "image"], "output": ["video"]},
        pricing={"method": "per_video_output_second", "cost_per_second": 0.05},
        json_request_schema=SEEDLESS_SCHEMA,
    ),
    _model(
        CHAT,
        "Llama 3.3 70B Instruct",
        "Chat model",
        "/chat/completions",
        capabilities={"input": ["text"], "output": ["text"]},
        pricing={"method": "token", "input_cost_per_token": 0.0000007, "output_cost_per_token": 0.0000007},
        json_request_schema=_schema(["messages"], ["messages"], {"messages": {"type": "array"}}),
    ),
)
"""Model objects as the hub lists them, but for `request_schema`, which the catalog adds as a copy."""
