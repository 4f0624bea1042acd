"""What a generation costs by its list price."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.pricing import price_of
from service.sandbox.schemas import MODEL_OBJECTS

LTX, STILL = MODEL_OBJECTS[0], MODEL_OBJECTS[1]
NAMES = ("method", "cost_per_second", "cost_per_second_with_audio", "cost_per_second_high_res", "cost_per_image")
METHODS = ("per_image", "per_video_output_second", "time", "token")
PARAMETERS = ("duration", "num_frames", "frames_per_second", "resolution", "generate_audio")
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.integers())
pricings = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(METHODS) | anything) | anything
parameters = st.dictionaries(st.sampled_from(PARAMETERS), anything)


def cost(model: dict[str, Any], parameters: dict[str, object]) -> float | None:
    """Of one generation, in dollars."""
    price = price_of(model["pricing"], model["json_request_schema"])
    assert price is not None
    return price.of(parameters)


@pytest.mark.parametrize(
    ("given", "dollars"),
    [
        ({"prompt": "x"}, 0.1 * 121 / 24),  # the schema's defaults: 121 frames, 24 a second, with sound
        ({"prompt": "x", "generate_audio": False}, 0.08 * 121 / 24),
        ({"prompt": "x", "num_frames": 240, "frames_per_second": 48}, 0.5),
        ({"prompt": "x", "num_frames": 240, "resolution": "1080p"}, 1.6),
        ({"prompt": "x", "duration": "5"}, 0.5),
    ],
)
def test_a_film_costs_by_its_seconds_and_by_what_makes_it_dearer(given: dict[str, object], dollars: float) -> None:
    assert cost(LTX, given) == pytest.approx(dollars)


def test_an_image_has_one_price() -> None:
    assert cost(STILL, {"prompt": "x"}) == 0.025


@pytest.mark.parametrize("pricing", [{"method": "token", "input_cost_per_token": 1}, {"method": "time"}, {}])
def test_what_cannot_be_told_beforehand_is_not_guessed(pricing: dict[str, object]) -> None:
    price = price_of(pricing, LTX["json_request_schema"])
    assert price is not None
    assert price.of({"prompt": "x"}) is None


@given(pricings, st.dictionaries(st.sampled_from(PARAMETERS), st.fixed_dictionaries({"default": anything})), parameters)
def test_whatever_the_hub_and_the_requester_say_the_price_is_a_plain_number_or_none(
    pricing: object, properties: dict[str, object], given: dict[str, object]
) -> None:
    price = price_of(pricing, {"properties": properties})
    dollars = None if price is None else price.of(given)
    assert dollars is None or (math.isfinite(dollars) and dollars >= 0)
