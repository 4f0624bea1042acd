"""A model's parameter schema, compiled: every fault of an input at once, and a seed where the model takes one.

jsonschema-rs follows `$schema`, else draft 2020-12. Unknown keywords (`x-order`, `basic`, `renderType`) are ignored and
`$ref` is resolved inside the document only: nothing is fetched.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from service.domain.errors import ErrorCode, PermanentError
from service.domain.states import Fault
from service.wire.json import pointer

MAX_DETAILS = 50
MAX_MESSAGE_CHARS = 300
SEED_LIMIT = 2**31 - 1  # every model that takes a seed takes one of 31 bits


class BrokenSchemaError(PermanentError):
    """The hub's schema of a model is not a JSON Schema."""


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """One model's schema, ready to judge inputs."""

    model: str
    validator: jsonschema_rs.Validator | None
    takes_seed: bool
    seed_range: tuple[int, int]

    @classmethod
    def compile(cls, model: str, schema: Mapping[str, Any] | None) -> ModelSchema:
        """Compiles what the hub says of a model; without a schema every input passes. BrokenSchemaError."""
        if not schema:
            return cls(model, None, takes_seed=False, seed_range=(0, SEED_LIMIT))
        try:
            validator = jsonschema_rs.validator_for(dict(schema), offline=True, validate_formats=False)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise BrokenSchemaError(f"The hub's schema of the model {model!r} is not usable: {error}") from error
        properties = schema.get("properties")
        seed = properties.get("seed") if isinstance(properties, Mapping) else None
        low, high = _range(seed) if isinstance(seed, Mapping) else (0, -1)
        takes_seed = high >= low and _accepts(validator, low)
        return cls(model, validator, takes_seed=takes_seed, seed_range=(low, high))

    def fault(self, parameters: Mapping[str, object]) -> Fault | None:
        """All that the schema finds wrong, each with its JSON pointer from the request's root; None when nothing."""
        if self.validator is None or self.validator.is_valid(parameters):
            return None
        found = [_detail(error) for error in self.validator.iter_errors(parameters)]
        text = f"The input does not fit the schema of the model {self.model}."
        return Fault(ErrorCode.INVALID_INPUT, text, tuple(found[:MAX_DETAILS]))

    def choose_seed(self, parameters: Mapping[str, object], num_generations: int) -> int | None:
        """A seed for a request that gave none and asks for one output, where the model takes one; else None.

        It makes the request reproducible, and recognisable among the hub's generations when a POST's outcome is lost.
        With several outputs one seed could make them all alike.
        """
        if not self.takes_seed or num_generations != 1 or "seed" in parameters:
            return None
        seed = random.randint(*self.seed_range)  # noqa: S311 - a mark, not a secret
        return seed if self.fault({**parameters, "seed": seed}) is None else None


def _range(seed: Mapping[str, Any]) -> tuple[int, int]:
    low = seed.get("minimum", seed.get("exclusiveMinimum", -1) + 1)
    high = seed.get("maximum", seed.get("exclusiveMaximum", SEED_LIMIT + 1) - 1)
    return max(0, int(low)), min(SEED_LIMIT, int(high))


def _accepts(validator: jsonschema_rs.Validator, seed: int) -> bool:
    """Whether the schema has nothing against an integer seed, whatever else an otherwise empty input lacks."""
    return not any(error.instance_path[:1] == ["seed"] for error in validator.iter_errors({"seed": seed}))


def _detail(error: jsonschema_rs.ValidationError) -> dict[str, object]:
    path: list[object] = ["input", *error.instance_path]
    missing = getattr(error.kind, "property", None)
    if isinstance(missing, str):  # a required property is named, not the object that lacks it
        path.append(missing)
    message = error.message
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 1] + "…"
    return {"path": pointer(path), "message": message}
