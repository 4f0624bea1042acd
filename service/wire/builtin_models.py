"""The schema of the first model, from its page in the hub's documentation, for when the hub cannot be asked."""

from __future__ import annotations

from service.domain.messages import DEFAULT_MODEL

NEGATIVE_PROMPT = (
    "color distortion, overexposure, static, blurry details, subtitles, style, artwork, painting, frame, still, "
    "dim overall tone, worst quality, low quality, JPEG compression artifacts, ugly, mutilated, extra fingers, "
    "poorly drawn hands, poorly drawn face, deformed, disfigured, malformed limbs, fused fingers, motionless frame, "
    "cluttered background, three legs, crowded background, walking backwards"
)

LTX_2_3_QUALITY_TEXT_TO_VIDEO: dict[str, object] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "description": "The prompt to generate the video from."},
        "num_frames": {
            "type": "integer",
            "minimum": 9,
            "maximum": 481,
            "default": 121,
            "description": "The number of frames to generate.",
        },
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
            "description": "Whether to include audio. When disabled, the MP4 has no audio track.",
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
        },
        "seed": {
            "type": "integer",
            "description": "Random seed for reproducibility. If None, one is chosen.",
        },
    },
}

BUILTIN_SCHEMAS = {DEFAULT_MODEL: LTX_2_3_QUALITY_TEXT_TO_VIDEO}
