"""What a generation costs by its model's list price, as far as that can be told beforehand: an estimate for operators.

The hub prices by `method` (`per_image`, `per_video_output_second`; by `time` or `token` nobody can tell before the end)
and a few rates in dollars. What the requester left out has the default of the model's schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

HIGH_RES_LINES = 1080
LINES = re.compile(r"(\d{3,4})p", re.IGNORECASE)
HIGH_RES = re.compile(r"[24]k|uhd", re.IGNORECASE)


class Price(Struct, frozen=True):
    """A model's list price: the hub's own words, and what its schema says of parameters that are left out."""

    pricing: Mapping[str, object]
    defaults: Mapping[str, object]

    def of(self, given: Mapping[str, object]) -> float | None:
        """Dollars for one generation with these parameters; None when that cannot be told."""
        parameters = {**self.defaults, **given}
        match self.pricing.get("method"):
            case "per_image":
                return self._rate("cost_per_image")
            case "per_video_output_second":
                seconds, rate = _seconds(parameters), self._per_second(parameters)
                return None if seconds is None or rate is None else seconds * rate
        return None

    def _per_second(self, parameters: Mapping[str, object]) -> float | None:
        """The dearest rate that applies."""
        rates = [self._rate("cost_per_second")]
        if parameters.get("generate_audio") is True:
            rates.append(self._rate("cost_per_second_with_audio"))
        if _is_high_res(parameters.get("resolution")):
            rates.append(self._rate("cost_per_second_high_res"))
        return max((rate for rate in rates if rate is not None), default=None)

    def _rate(self, name: str) -> float | None:
        rate = _number(self.pricing.get(name))
        return None if rate is None or rate < 0 else rate


def price_of(pricing: object, schema: object) -> Price | None:
    """What is to be had from a model's description; None where the hub names no price."""
    if not isinstance(pricing, Mapping):
        return None
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    described = properties.items() if isinstance(properties, Mapping) else ()
    return Price(
        pricing,
        {str(name): value["default"] for name, value in described if isinstance(value, Mapping) and "default" in value},
    )


def _seconds(parameters: Mapping[str, object]) -> float | None:
    """How long the film will be: `duration`, or frames by their rate."""
    if (duration := _number(parameters.get("duration"))) is not None:
        return duration if duration > 0 else None
    frames, rate = _number(parameters.get("num_frames")), _number(parameters.get("frames_per_second"))
    return frames / rate if frames is not None and rate is not None and frames > 0 and rate > 0 else None


def _is_high_res(resolution: object) -> bool:
    if not isinstance(resolution, str):
        return False
    lines = LINES.search(resolution)
    return HIGH_RES.search(resolution) is not None or (lines is not None and int(lines[1]) >= HIGH_RES_LINES)


def _number(value: object) -> float | None:
    """A finite number, also one in a string ("5", "5s"), as some models have their durations."""
    if isinstance(value, str):
        digits = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*s?\s*", value)
        return float(digits[1]) if digits else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 else None
