"""One model of the sandbox's further offer: how it is described, what it really takes, and what it makes of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from service.sandbox.commission import MediaType, Reader

Json = dict[str, Any]

_PRICING: Final[dict[MediaType, Json]] = {
    "image": {"method": "per_image", "cost_per_image": 0.03},
    "video": {"method": "per_video_output_second", "cost_per_second": 0.06},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """`rules` is None where the published schema says all in JSON Schema's own words, as a validator reads them."""

    id: str
    name: str
    makes: MediaType
    takes: tuple[str, ...]
    schema: Json | bool
    read: Reader
    rules: Json | None = None

    @property
    def description(self) -> Json:
        """The model object as the hub lists it, but for `request_schema`."""
        return {
            "id": self.id,
            "object": "model",
            "created": 1_772_000_000,
            "owned_by": "oxen",
            "display_name": self.name,
            "description": f"Makes one {self.makes} from {' and '.join(self.takes)}",
            "endpoint": f"/{self.makes}s/generate",
            "capabilities": {"input": list(self.takes), "output": [self.makes]},
            "pricing": _PRICING[self.makes],
            "json_request_schema": self.schema,
        }
