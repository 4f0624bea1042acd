"""What the sandbox renders: real files that honour the parameters. Read back with PyAV alone."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.sandbox.commission import Commission
from service.sandbox.rendering.picture import Picture
from tests.conformance.caller import SEEDLESS, STILL, Caller

pytestmark = pytest.mark.asyncio

SMALL = {"prompt": "a heron", "resolution": "square", "num_frames": 9, "seed": 1}


@dataclass(frozen=True, slots=True)
class Film:
    """A film read back.

    `frames` are digests of the decoded frames, `corners` of their upper right quarters, where no lettering is;
    `loudest` is the peak of the sound (0 to 1).
    """

    size: int
    width: int
    height: int
    fps: Fraction
    video_codec: str
    video_s: float
    audio_codec: str | None
    audio_s: float
    loudest: float
    frames: list[str]
    corners: list[str]


def digest(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read(content: bytes) -> Film:
    """Decode every frame and every sample."""
    with av.open(io.BytesIO(content), "r") as container:
        video = container.streams.video[0]
        frames = [frame.to_ndarray() for frame in container.decode(video)]
        samples = [np.zeros(1, np.float32)]
        audio = container.streams.audio[0] if container.streams.audio else None
        if audio is not None:
            container.seek(0)
            samples += [frame.to_ndarray().ravel().astype(np.float32) for frame in container.decode(audio)]
        assert video.duration is not None
        assert video.time_base is not None
        assert video.average_rate is not None
        return Film(
            size=len(content),
            width=video.width,
            height=video.height,
            fps=video.average_rate,
            video_codec=video.codec_context.name,
            video_s=float(video.duration * video.time_base),
            audio_codec=audio.codec_context.name if audio else None,
            audio_s=float((audio.duration or 0) * (audio.time_base or 0)) if audio else 0,
            loudest=float(np.abs(np.concatenate(samples)).max()),
            frames=[digest(frame) for frame in frames],
            corners=[digest(frame[: video.height // 2, video.width // 2 :]) for frame in frames],
        )


async def render(cinema: Caller, **parameters: object) -> Film:
    """The film of a generation that succeeds."""
    generation = await cinema.end(**parameters)
    assert generation["status"] == "succeeded", generation["error_message"]
    status, content = await cinema.download(generation["result_url"])
    assert status == 200
    assert content[4:8] == b"ftyp"
    assert content.index(b"moov") < content.index(b"mdat"), "players start before they have all of it"
    return read(content)


async def test_a_prompt_alone_gives_the_films_of_the_defaults(cinema: Caller) -> None:
    film = await render(cinema, prompt="a heron over the lake")
    assert (film.video_codec, film.audio_codec) == ("h264", "aac")
    assert (film.width, film.height, float(film.fps), len(film.frames)) == (1280, 720, 24, 121)
    assert film.video_s == pytest.approx(121 / 24, abs=0.01)
    assert film.audio_s == pytest.approx(121 / 24, abs=0.05)
    assert len(set(film.corners)) == 121, "something moves in every frame"
    assert film.loudest > 0.05


@pytest.mark.parametrize("fps", [1, 23.976, 60])
async def test_the_film_has_the_frames_and_the_rate_asked_for(cinema: Caller, fps: float) -> None:
    film = await render(cinema, **SMALL | {"num_frames": 11, "frames_per_second": fps})
    assert len(film.frames) == 11
    assert float(film.fps) == pytest.approx(fps, abs=0.001)
    assert film.video_s == pytest.approx(11 / fps, abs=0.01)
    assert film.audio_s == pytest.approx(11 / fps, abs=0.05)


SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (720, 1280),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1280, 720),
}


@pytest.mark.parametrize("resolution", SIZES)
async def test_the_resolution_is_a_preset_of_the_family(cinema: Caller, resolution: str) -> None:
    film = await render(cinema, **SMALL | {"resolution": resolution})
    assert (film.width, film.height) == SIZES[resolution]


async def test_without_audio_the_film_has_no_sound_track(cinema: Caller) -> None:
    film = await render(cinema, **SMALL, generate_audio=False)
    assert film.audio_codec is None


async def test_the_same_prompt_and_seed_give_the_same_frames(cinema: Caller) -> None:
    assert (await render(cinema, **SMALL)).frames == (await render(cinema, **SMALL)).frames


@pytest.mark.parametrize("other", [{"seed": 2}, {"prompt": "an egret"}], ids=str)
async def test_another_seed_or_prompt_gives_other_frames(cinema: Caller, other: dict[str, object]) -> None:
    one, another = await render(cinema, **SMALL), await render(cinema, **SMALL | other)
    assert not set(one.corners) & set(another.corners)


async def test_caption_and_frame_counter_lie_on_the_picture() -> None:
    picture = Picture(
        Commission(media_type="video", suffix="mp4", prompt="x", seed=1, width=640, height=360, num_frames=9)
    )
    margin = picture._margin
    for number in (0, 8):
        counter = picture._counter.at(number + 1)
        rows, columns = counter.shape
        assert np.array_equal(picture.draw(number)[margin : margin + rows, margin : margin + columns], counter)
    rows, columns = picture._caption.shape
    assert np.array_equal(
        picture.buffer[360 - margin - rows : 360 - margin, margin : margin + columns], picture._caption
    )


async def test_without_a_seed_every_film_is_different_and_the_seed_stays_unknown(cinema: Caller) -> None:
    unseeded = {name: value for name, value in SMALL.items() if name != "seed"}
    one, another = await render(cinema, **unseeded), await render(cinema, **unseeded)
    assert not set(one.corners) & set(another.corners)
    assert "seed" not in await cinema.end(**unseeded)


async def test_a_higher_quality_makes_a_larger_film(cinema: Caller) -> None:
    sizes = [(await render(cinema, **SMALL, video_quality=q)).size for q in ("low", "medium", "high", "maximum")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("prompt", ["", "日本の鷺 \U0001f426", "line\nbreaks\tand \x00 more", "long " * 500])
async def test_any_prompt_can_be_drawn(cinema: Caller, prompt: str) -> None:
    assert len((await render(cinema, **SMALL | {"prompt": prompt})).frames) == 9


async def test_the_model_without_a_seed_makes_films_of_whole_seconds(cinema: Caller) -> None:
    film = await render(cinema, model=SEEDLESS, image_url="https://example.com/a.png", aspect_ratio="1:1")
    assert (film.width, film.height, len(film.frames), film.audio_codec) == (720, 720, 120, None)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize(("size", "pixels"), [("square", (512, 512)), ({"width": 65, "height": 131}, (65, 131))])
async def test_an_image_has_the_format_and_the_size_asked_for(
    cinema: Caller, kind: str, size: object, pixels: tuple[int, int]
) -> None:
    generation = await cinema.end(model=STILL, image_size=size, output_format=kind)
    _, content = await cinema.download(generation["result_url"])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == (kind.upper(), pixels)


async def test_a_cancel_while_rendering_leaves_a_cancelled_generation_and_no_file(cinema: Caller) -> None:
    [generation_id] = await cinema.post(num_frames=481)
    path = cinema.sandbox.hub.results.path(f"{generation_id}.mp4")
    await cinema.until(lambda _: path.exists())
    await cinema.call("DELETE", f"/api/ai/queue/{generation_id}")
    await cinema.until(lambda _: not path.exists())
    assert (await cinema.get(generation_id))["status"] == "cancelled"
