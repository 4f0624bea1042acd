"""What the hub says apart from facts about requests: models and lists."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from service.domain.matching import Sighting


class ModelDescription(Struct, frozen=True):
    """A model as the hub describes it; `outputs` (`image`, `video`, ...) is empty where the hub does not say.

    `schema` is a JSON Schema as the hub has it (an object, or true), not looked at; None where there is none. So is
    `pricing`.
    """

    model: str
    outputs: tuple[str, ...]
    schema: Mapping[str, object] | bool | None
    pricing: Mapping[str, object] | None = None


class ModelOffer(Struct, frozen=True):
    """A model as the hub's list has it, for who wants to choose one; `pricing` and `schema` are the hub's own words."""

    model: str
    name: str | None
    description: str | None
    outputs: tuple[str, ...]
    pricing: Mapping[str, object] | None
    schema: Mapping[str, object] | bool | None


class Sightings(Struct, frozen=True):
    """Those generations of a list that were asked for, with their parameters; not `complete` when it left some out."""

    sightings: tuple[Sighting, ...]
    complete: bool


class Listing(Struct, frozen=True):
    """Which of the generations asked about a list of active ones does not show, in the order in which they were named;
    not `complete` when it says itself that it left some out."""

    missing: tuple[str, ...]
    complete: bool
