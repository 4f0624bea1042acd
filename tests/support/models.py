"""What each of the sandbox's models takes and does not take: inputs, and the paths of the faults of the wrong ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.sandbox import schemas
from service.sandbox.models import edits, films, odd, stills

Input = dict[str, Any]
PNG = "https://example.com/a.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


@dataclass(frozen=True)
class Trial:
    """`small` is quickly rendered; `good` are accepted besides, as they stand; `bad` is an input with its paths."""

    model: str
    makes: str
    small: Input
    good: list[Input] = field(default_factory=list)
    bad: list[tuple[Input, list[str]]] = field(default_factory=list)
    seed: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.model


EDIT = {"prompt": "x", "image_url": PNG}
SHOTS = [{"prompt": "a"}, {"prompt": "b", "duration": 1}]
FRAMES = {"prompt": "x", "start_image_url": PNG}
QWEN = {"prompt": "x", "negative_prompt": None}
PRESET = {"kind": "preset", "name": "EMBER"}
ALL = (0, 2**31 - 1)

TRIALS = [
    Trial(
        schemas.LTX,
        "video",
        {"prompt": "x", "resolution": "square", "num_frames": 9},
        [{"prompt": "x", "frames_per_second": 24.0}, {"prompt": "x", "seed": 2**53 + 1}],
        [({"prompt": "x", "num_frames": 8}, ["/input/num_frames"]), ({}, ["/input/prompt"])],
        ALL,
    ),
    Trial(
        schemas.STILL,
        "image",
        {"prompt": "x", "image_size": "square"},
        [{"prompt": "x", "image_size": {"width": 64, "height": 99}}, {"prompt": "x", "reference_images": [PNG, DATA]}],
        [
            ({"prompt": "x", "image_size": {"width": 64}}, ["/input/image_size/height"]),
            ({"prompt": "x", "image_size": "huge"}, ["/input/image_size"]),
            ({"prompt": "x", "reference_images": [PNG, "a.png"]}, ["/input/reference_images/1"]),
        ],
        ALL,
    ),
    Trial(
        schemas.SEEDLESS,
        "video",
        {"prompt": "x", "image_url": PNG, "duration": "5"},
        [{"prompt": "x", "image_url": DATA, "cfg_scale": 0.30000000000000004}],
        [({"prompt": "x", "image_url": PNG, "duration": 5}, ["/input/duration"])],
    ),
    Trial(
        edits.KONTEXT,
        "image",
        EDIT,
        [
            {**EDIT, "seed": None, "aspect_ratio": None, "guidance_scale": 3.50},
            {**EDIT, "safety_tolerance": "2", "seed": 4294967295},
        ],
        [
            ({**EDIT, "promt": "x"}, ["/input/promt"]),
            ({**EDIT, "prompt": ""}, ["/input/prompt"]),
            ({**EDIT, "safety_tolerance": 2}, ["/input/safety_tolerance"]),
            ({**EDIT, "guidance_scale": 20}, ["/input/guidance_scale"]),
            ({**EDIT, "aspect_ratio": "7:1"}, ["/input/aspect_ratio"]),
            ({**EDIT, "seed": 4294967296}, ["/input/seed"]),
            ({**EDIT, "image_url": "/home/me/a.png"}, ["/input/image_url"]),
            ({"image_url": 5}, ["/input/image_url", "/input/prompt"]),
        ],
        ALL,
    ),
    Trial(
        edits.SEEDREAM,
        "image",
        {"prompt": "x", "image_urls": [PNG]},
        [
            {"prompt": "x", "image_urls": [PNG, DATA], "image_size": {"width": 1024, "height": 64}, "seed": None},
            {"prompt": "x", "image_urls": [PNG], "image_size": "square_hd", "a_parameter_of_tomorrow": [1]},
        ],
        [
            ({"prompt": "x", "image_urls": []}, ["/input/image_urls"]),
            ({"prompt": "x", "image_urls": [f"{PNG}?{n}" for n in range(11)]}, ["/input/image_urls"]),
            ({"prompt": "x", "image_urls": [PNG, PNG]}, ["/input/image_urls"]),
            ({"prompt": "x", "image_urls": [PNG, "https://"]}, ["/input/image_urls/1"]),
            ({"prompt": "x", "image_urls": PNG}, ["/input/image_urls"]),
            (
                {"prompt": "x", "image_urls": [PNG], "image_size": {"width": 65, "height": "64"}},
                ["/input/image_size/height", "/input/image_size/width"],
            ),
            ({"prompt": "x", "image_urls": [PNG], "seed": -1}, ["/input/seed"]),
            ({"prompt": "x", "image_urls": [PNG], "seed": "1"}, ["/input/seed"]),
        ],
        (0, 9999999),
    ),
    Trial(
        edits.UPSCALER,
        "image",
        {"image_url": PNG},
        [{"image_url": DATA, "scale": 4, "sharpness": 1, "face_enhance": True}, {"image_url": PNG, "scale": 2.0}],
        [
            ({}, ["/input/image_url"]),
            ({"image_url": PNG, "sharpness": 0}, ["/input/sharpness"]),
            ({"image_url": PNG, "scale": 3}, ["/input/scale"]),
        ],
    ),
    Trial(
        stills.IDEOGRAM,
        "image",
        {"prompt": "x"},
        [
            {"prompt": "x", "style_preset": "STYLE_399", "color_palette": PRESET, "num_steps": None},
            {"prompt": "x", "color_palette": {"kind": "members", "members": [{"rgb": "#00ff00", "weight": 1}]}},
            {"prompt": "x", "style_codes": ["00ffAA11"], "num_steps": "turbo"},
            {"prompt": "x", "style_codes": None, "image_url": None, "num_steps": 10},
            {"prompt": "x", "image_url": PNG, "image_weight": 50},
        ],
        [
            ({"prompt": "x", "style_preset": "STYLE_400"}, ["/input/style_preset"]),
            ({"prompt": "x", "color_palette": {"kind": "preset", "name": "RED"}}, ["/input/color_palette/name"]),
            ({"prompt": "x", "color_palette": {"kind": "tone"}}, ["/input/color_palette/kind"]),
            ({"prompt": "x", "color_palette": {"name": "EMBER"}}, ["/input/color_palette"]),
            (
                {"prompt": "x", "color_palette": {"kind": "members", "members": [{"rgb": "#00ff00"}, {"rgb": "red"}]}},
                ["/input/color_palette/members/1/rgb"],
            ),
            ({"prompt": "x", "style_codes": ["00ffAA1"]}, ["/input/style_codes/0"]),
            ({"prompt": "x", "num_steps": "10"}, ["/input/num_steps"]),
            ({"prompt": "x", "image_weight": 50}, ["/input/image_url"]),
            ({"prompt": "x", "seed": 2**31}, ["/input/seed"]),
        ],
        ALL,
    ),
    Trial(
        stills.QWEN,
        "image",
        QWEN,
        [{**QWEN, "loras": [{"path": PNG, "scale": 0.5}, {"path": PNG}]}, {**QWEN, "seed": -1}, {**QWEN, "loras": []}],
        [
            ({"prompt": "x"}, ["/input/negative_prompt"]),
            ({**QWEN, "loras": [{"path": PNG}, {"scale": 5}]}, ["/input/loras/1/path", "/input/loras/1/scale"]),
            ({**QWEN, "loras": [{"path": PNG, "strength": 1}]}, ["/input/loras/0/strength"]),
            ({**QWEN, "loras": [PNG]}, ["/input/loras/0"]),
            ({**QWEN, "seed": 0.5}, ["/input/seed"]),
            ({**QWEN, "aspect_ratio": None}, ["/input/aspect_ratio"]),
        ],
        ALL,
    ),
    Trial(
        stills.IMAGEN,
        "image",
        {"prompt": "x", "aspect_ratio": None},
        [{"prompt": "x", "image_size": None, "seed": None}, {"prompt": "x", "aspect_ratio": "4:3", "seed": 1000}],
        [
            ({"prompt": None}, ["/input/prompt"]),
            ({"prompt": "x", "aspect_ratio": "wide"}, ["/input/aspect_ratio"]),
            ({"prompt": "x", "seed": 0}, ["/input/seed"]),
            ({"prompt": "x", "image_size": "8K"}, ["/input/image_size"]),
        ],
        None,  # it takes one of 1,000, which is no mark
    ),
    Trial(
        films.WAN,
        "video",
        {**FRAMES, "num_frames": 17, "resolution": "240p"},
        [
            {**FRAMES, "end_image_url": None, "seed": None, "resolution": None, "guidance_scale": 10, "num_frames": 17},
            {**FRAMES, "end_image_url": DATA, "guidance_scale": 0.01, "num_frames": 17},
        ],
        [
            ({"prompt": "x"}, ["/input/start_image_url"]),
            ({**FRAMES, "start_image_url": None}, ["/input/start_image_url"]),
            ({**FRAMES, "end_image_url": "b.png"}, ["/input/end_image_url"]),
            ({**FRAMES, "guidance_scale": 0}, ["/input/guidance_scale"]),
            ({**FRAMES, "guidance_scale": 10.5, "num_frames": None}, ["/input/guidance_scale", "/input/num_frames"]),
            ({**FRAMES, "seed": "7"}, ["/input/seed"]),
        ],
        ALL,
    ),
    Trial(
        films.VIDU,
        "video",
        {"multi_prompt": SHOTS},
        [{"prompt": "x"}, {"prompt": "x", "voice": "alto", "audio": True}, {**FRAMES, "end_image_url": PNG}],
        [
            ({"multi_prompt": [*SHOTS, {"prompt": "c", "duration": 16}]}, ["/input/multi_prompt/2/duration"]),
            ({"multi_prompt": [{"prompt": "c", "duration": "5"}]}, ["/input/multi_prompt/0/duration"]),
            ({"multi_prompt": [{"duration": 5}]}, ["/input/multi_prompt/0/prompt"]),
            ({"multi_prompt": [{"prompt": "a", "seconds": 5}]}, ["/input/multi_prompt/0/seconds"]),
            ({"multi_prompt": []}, ["/input/multi_prompt"]),
            ({"multi_prompt": SHOTS, "prompt": "x"}, ["/input"]),
            ({"resolution": "240p"}, ["/input"]),
            ({"prompt": "x", "end_image_url": PNG}, ["/input/start_image_url"]),
            ({"prompt": "x", "voice": "alto"}, ["/input/audio"]),
            ({"prompt": "x", "seed": 1}, ["/input/seed"]),
        ],
    ),
    Trial(
        films.HAILUO,
        "video",
        {"image_url": PNG, "duration": 1},
        [{"image_url": PNG, "duration": "6", "prompt": "", "seed": None}, {"image_url": DATA, "duration": 1.0}],
        [
            ({"image_url": "example.com/a.png"}, ["/input/image_url"]),
            ({"image_url": PNG, "duration": "1"}, ["/input/duration"]),
            ({"image_url": PNG, "seed": 99}, ["/input/seed"]),
            ({"image_url": PNG, "prompt": None}, ["/input/prompt"]),
        ],
        None,  # of 900, which is no mark
    ),
    Trial(
        odd.COMFY,
        "image",
        {"6/text": "x"},
        [
            {"6/text": "x", "3~cfg": 7.5, "~1": 1, "": True, "__class__": "KSampler", "$ref": "#", "x-note": "n"},
            {"6/text": "x", "next": {"6/text": "y", "next": {"6/text": "z"}}, "required": ["a"], "nullable": True},
        ],
        [
            ({}, ["/input/6~1text"]),
            ({"6/text": 5}, ["/input/6~1text"]),
            ({"6/text": "x", "3~cfg": -1, "~1": "1"}, ["/input/3~0cfg", "/input/~01"]),
            ({"6/text": "x", "next": {"6/text": "y", "next": {}}}, ["/input/next/next/6~1text"]),
            ({"6/text": "x", "x-note": True, "nullable": None}, ["/input/nullable", "/input/x-note"]),
        ],
    ),
    Trial(odd.LUMA, "video", {"prompt": "x"}, [{"prompt": "x", "loop": True}]),
    Trial(odd.TURBO, "image", {"prompt": "x"}, [{"prompt": "x", "seed": 5}]),
    Trial(odd.PIXART, "image", {"prompt": "x"}, [{"prompt": "x", "seed": 5}]),
]
