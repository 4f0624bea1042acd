"""Recognising upstream what a lost answer was about. Pure: doubts and sightings in, an assignment out.

The hub has no idempotency keys, but it echoes a generation's parameters. A request in doubt is recognised by its
content: the model and every parameter that was sent; a seed that the service chose is as good as a mark. A generation
enqueued before the attempt (clock skew allowed), or already an output of ours, is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from service.domain.states import Request

CLOCK_SKEW = timedelta(seconds=60)
# What the hub says of a generation besides the parameters that it echoes.
HUB_FIELDS = frozenset(
    {
        *(
            "generation_id",
            "model_name",
            "model",
            "media_type",
            "status",
            "result_url",
            "url",
            "error_message",
            "error",
        ),
        *("enqueued_at", "started_at", "completed_at", "progress", "videos", "video", "images", "result"),
        *("num_generations", "target_namespace", "namespace", "created_at", "updated_at", "id"),
    }
)


class Sighting(Struct, frozen=True):
    """A generation as a list shows it, with the parameters it was asked for."""

    generation_id: str
    model: str
    parameters: Mapping[str, object]
    enqueued_at: datetime | None


class Doubt(Struct, frozen=True):
    """A request whose POST may have been accepted, with what was sent."""

    request: Request
    parameters: Mapping[str, object]
    marked: bool  # the seed is the service's own
    attempted_at: datetime
    doubted_at: datetime


def same_value(sent: object, shown: object) -> bool:
    """Equality as JSON has it: 24 is 24.0, true is not 1."""
    if isinstance(sent, bool) or isinstance(shown, bool):
        return sent is shown
    if isinstance(sent, Mapping) and isinstance(shown, Mapping):
        return sent.keys() == shown.keys() and all(same_value(sent[key], shown[key]) for key in sent)
    if isinstance(sent, list) and isinstance(shown, list):
        return len(sent) == len(shown) and all(map(same_value, sent, shown))
    return sent == shown


def matches(doubt: Doubt, sighting: Sighting) -> bool:
    """Whether that generation is what this request asked for."""
    if sighting.model != doubt.request.model:
        return False
    shown = sighting.parameters
    # Null is as good as absent: so the hub shows the prompt of a model that takes none.
    if not all(same_value(value, shown.get(name)) for name, value in doubt.parameters.items()):
        return False
    if doubt.marked:
        return True
    if sighting.enqueued_at is None or sighting.enqueued_at < doubt.attempted_at - CLOCK_SKEW:
        return False
    more = {name for name, value in shown.items() if value is not None}
    return not (more - doubt.parameters.keys() - HUB_FIELDS)


def concerning(doubts: Iterable[Doubt]) -> Callable[[Sighting], bool]:
    """Whether a generation is what one of these requests asked for: all that a look has to keep of a list."""
    by_content: dict[tuple[str, str, str], list[Doubt]] = {}
    for doubt in doubts:
        by_content.setdefault(_rough_with_seed(doubt.request.model, doubt.parameters), []).append(doubt)

    def concerns(sighting: Sighting) -> bool:
        alike = by_content.get(_rough_with_seed(sighting.model, sighting.parameters), ())
        return any(matches(doubt, sighting) for doubt in alike)

    return concerns


def assign(
    doubts: Sequence[Doubt], sightings: Iterable[Sighting], owned: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Generation ids by request id, at most as many as were asked for, each generation to one request only.

    The oldest attempt chooses first, and takes the generations that were enqueued first.
    """
    free: dict[tuple[str, str], dict[str, Sighting]] = {}
    for sighting in sorted(sightings, key=_by_age):
        if sighting.generation_id not in owned:
            free.setdefault(_rough(sighting.model, sighting.parameters), {})[sighting.generation_id] = sighting
    assigned: dict[str, tuple[str, ...]] = {}
    for doubt in sorted(doubts, key=lambda doubt: (doubt.attempted_at, doubt.request.request_id)):
        alike = free.get(_rough(doubt.request.model, doubt.parameters), {})
        found = [key for key, sighting in alike.items() if matches(doubt, sighting)][: doubt.request.num_generations]
        if found:
            assigned[doubt.request.request_id] = tuple(found)
            for key in found:
                del alike[key]
    return assigned


def _by_age(sighting: Sighting) -> tuple[bool, float, str]:
    enqueued = sighting.enqueued_at
    return enqueued is None, enqueued.timestamp() if enqueued else 0.0, sighting.generation_id


def _rough_with_seed(model: str, parameters: Mapping[str, object]) -> tuple[str, str, str]:
    """Closer: many that are marked share a prompt, never a seed. 7.0 is 7 as everywhere in JSON."""
    seed = parameters.get("seed")
    if isinstance(seed, float) and seed.is_integer():
        seed = int(seed)
    return *_rough(model, parameters), str(seed) if isinstance(seed, int | str) else ""


def _rough(model: str, parameters: Mapping[str, object]) -> tuple[str, str]:
    """What two alike generations surely share: a key, so that not everything is compared with everything."""
    prompt = parameters.get("prompt")
    return model, prompt if isinstance(prompt, str) else ""
