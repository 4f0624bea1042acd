"""A model's parameter schema, compiled: every fault of an input at once, and a seed where the model takes one.

jsonschema-rs follows `$schema`, else draft 2020-12, after `service.wire.dialects`. Unknown keywords (`x-order`,
`basic`, `renderType`) are ignored and `$ref` is resolved inside the document only: nothing is fetched.

Of formats only `uri` is judged, and leniently: a URL without a scheme or host fails at the hub minutes later, and
costs; the grammar of RFC 3986 would refuse what hubs take (umlauts, blanks), and so would the other formats.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from service.domain.errors import ErrorCode, PermanentError
from service.domain.states import Fault
from service.wire.dialects import Extent, in_plain_words
from service.wire.json import pointer
from service.wire.schema_faults import MASK, details
from service.wire.seeds import Rooms, is_plain, seed_rooms

MAX_SUBSCHEMAS = 10_000  # with every reference written out: a thousand times what a model needs
MAX_WORK = 200_000  # subschemas times values: what is told of an input at once, within some 100 ms
MAX_DEPTH = 6  # of an input whose schema is recursive: the faults found may double with each level
TOO_DEEP: dict[str, object] = {
    "path": "/input",
    "message": "Something in it does not fit; it is nested too deeply to say what.",
}
NOTHING = Extent({})
PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=50_000)  # a few milliseconds, then it is undecided
ABSOLUTE_URI = re.compile(r"\s*(?!https?:(?!//[^/?#\s]))[a-z][a-z0-9+.-]+:\S", re.IGNORECASE)
UNJUDGED = (
    *("date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri-reference", "iri", "iri-reference", "uri-template", "uuid", "json-pointer", "relative-json-pointer"),
    "regex",
)


MAX_REASON_CHARS = 500
LEAST_MARKS = 2**20  # a mark that chance may hit is none: it would let a request adopt what somebody else has bought


class BrokenSchemaError(PermanentError):
    """The hub's schema of a model is not a JSON Schema that can be used."""


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """One model's schema, ready to judge inputs."""

    model: str
    validator: jsonschema_rs.Validator | None
    seeds: Rooms = ()
    seed_is_plain: bool = True
    extent: Extent = NOTHING

    @classmethod
    def compile(cls, model: str, schema: object) -> ModelSchema:
        """Compiles what the hub says of a model; without a schema every input passes. BrokenSchemaError."""
        if schema is None or schema is True or schema == {}:
            return cls(model, None)
        if not isinstance(schema, Mapping):
            raise _broken(model, "it is neither an object nor true")
        try:
            plain = in_plain_words(schema)
            extent = Extent(plain)
            if extent.subschemas > MAX_SUBSCHEMAS:
                raise _broken(model, f"its references unfold to more than {MAX_SUBSCHEMAS} schemas")
            validator = jsonschema_rs.validator_for(
                plain,
                offline=True,
                validate_formats=True,
                formats={"uri": _is_uri, **dict.fromkeys(UNJUDGED, _passes)},
                mask=MASK,
                pattern_options=PATTERNS,
            )
        except jsonschema_rs.ValidationError as error:
            raise _broken(model, f"{error.message} (at {pointer(error.instance_path) or 'its root'})") from None
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise _broken(model, str(error)) from error
        except RecursionError:
            raise _broken(model, "it is nested too deeply") from None
        return cls(model, validator, _accepted(validator, seed_rooms(plain)), is_plain(plain), extent)

    @property
    def takes_seed(self) -> bool:
        """Whether some input of this model may have an integer seed."""
        return bool(self.seeds)

    def fault(self, parameters: Mapping[str, object]) -> Fault | None:
        """All that the schema finds wrong, each with its JSON pointer from the request's root; None when nothing.

        Of an input so large or deep that finding all could take too long: the first, or that there is something.
        """
        if self.validator is None or self.validator.is_valid(parameters):
            return None
        values, depth = _measure(parameters)
        if self.extent.recursive and depth > MAX_DEPTH:
            found: tuple[dict[str, object], ...] = (TOO_DEEP,)
        elif self.extent.subschemas * values > MAX_WORK:
            found = details(_first(self.validator, parameters))
        else:
            found = details(self.validator.iter_errors(parameters))
        text = f"The input does not fit the schema of the model {self.model}."
        return Fault(ErrorCode.INVALID_INPUT, text, found) if found else None

    def choose_seed(self, parameters: Mapping[str, object], num_generations: int) -> int | None:
        """A seed for a request that gave none and asks for one output, where the model takes one of many; else None.

        It makes the request reproducible, and recognisable among the hub's generations when a POST's outcome is lost.
        With several outputs one seed could make them all alike.
        """
        if not self.seeds or self.validator is None or num_generations != 1 or "seed" in parameters:
            return None
        widths = [high - low + 1 for low, high in self.seeds]
        if sum(widths) < LEAST_MARKS:
            return None
        seed = random.randint(*random.choices(self.seeds, widths)[0])  # noqa: S311 - a mark, not a secret
        seeded = {**parameters, "seed": seed}
        if not self.validator.is_valid(seeded) or not (self.seed_is_plain or _speaks_of_seed(self.validator, seeded)):
            return None
        return seed


def _first(
    validator: jsonschema_rs.Validator, parameters: Mapping[str, object]
) -> Iterator[jsonschema_rs.ValidationError]:
    try:
        validator.validate(parameters)
    except jsonschema_rs.ValidationError as error:
        yield error


def _broken(model: str, reason: str) -> BrokenSchemaError:
    return BrokenSchemaError(f"The hub's schema of the model {model!r} is not usable: {reason[:MAX_REASON_CHARS]}")


def _is_uri(value: str) -> bool:
    return ABSOLUTE_URI.match(value) is not None


def _passes(_: str) -> bool:
    return True


def _accepted(validator: jsonschema_rs.Validator, rooms: Rooms) -> Rooms:
    """Those in which the schema has nothing against a seed, whatever else an otherwise empty input lacks."""
    return tuple(room for room in rooms if not any(_faulty(validator, seed) for seed in room))


def _faulty(validator: jsonschema_rs.Validator, seed: int) -> bool:
    return any(error.instance_path[:1] == ["seed"] for error in validator.iter_errors({"seed": seed}))


def _speaks_of_seed(validator: jsonschema_rs.Validator, parameters: Mapping[str, Any]) -> bool:
    """Whether one of the alternatives that these parameters fit has a `seed`, and does not merely let it pass."""
    return any(
        note["instanceLocation"] == "" and note["schemaLocation"].endswith("/properties") and _names_seed(note)
        for note in validator.evaluate(parameters).annotations()
    )


def _names_seed(note: jsonschema_rs.EvaluationAnnotation) -> bool:
    names = note["annotations"]
    return isinstance(names, list) and "seed" in names


def _measure(value: object) -> tuple[int, int]:
    """How many values there are in one, itself included, and how deep they lie."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    values, depth = 1, 0
    for item in inner:
        more, below = _measure(item)
        values, depth = values + more, max(depth, below + 1)
    return values, depth
