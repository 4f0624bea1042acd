"""What a schema finds wrong with an input, as a person would say it: the parameter's path, and what would be right.

The value is never repeated: it may be a prompt. Of a union the closest alternative's faults are told, else all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import jsonschema_rs

from service.wire.json import dumps, pointer

Error = jsonschema_rs.ValidationError
Kind = jsonschema_rs.ValidationErrorKind

MAX_DETAILS = 50
MAX_MESSAGE_CHARS = 300
MASK = "the value"
UNDECIDED = (Kind.BacktrackLimitExceeded, Kind.RegexEngineFailure)
ANOTHER_SHAPE = (Kind.Type, Kind.Enum, Kind.Constant)


def details(errors: Iterable[Error]) -> tuple[dict[str, object], ...]:
    """`path` (a JSON pointer from the request's root) and `message` for each fault; the same is not said twice.

    What a pattern could not decide within its limit is no fault: the hub judges it.
    """
    told = chain.from_iterable(_told(error) for error in errors if not undecided(error))
    once = dict.fromkeys((pointer(["input", *path]), _short(message)) for path, message in told)
    return tuple({"path": path, "message": message} for path, message in islice(once, MAX_DETAILS))


def undecided(error: Error) -> bool:
    """Whether the input may be right after all: a pattern gave up, or an alternative failed by nothing else."""
    if isinstance(error.kind, UNDECIDED):
        return True
    return any(branch and all(map(undecided, branch)) for branch in _alternatives(error))


def _told(error: Error) -> Iterator[tuple[Sequence[object], str]]:
    kind, path = error.kind, error.instance_path
    match kind:
        case Kind.Required(property=name):  # a required property is named, not the object that lacks it
            yield [*path, name], "This parameter is required."
        case Kind.AdditionalProperties(unexpected=names) | Kind.UnevaluatedProperties(unexpected=names):
            for name in names:
                yield [*path, name], "There is no such parameter."
        case Kind.AnyOf() | Kind.OneOfNotValid():
            yield from _told_of_union(error)
        case Kind.PropertyNames(error=inner):
            for _, message in _told(inner):
                yield path, f"A name in it is not allowed: {message}"
        case _:
            yield path, _sentence(error)


def _sentence(error: Error) -> str:
    match error.kind:
        case Kind.Type(types=types):
            return f"The value must be {_or(map(_article, sorted(types, key='null'.__eq__)))}."
        case Kind.Enum(options=options):
            return f"The value must be {_or(map(_json, options))}."
        case Kind.Constant(expected_value=value):
            return f"The value must be {_json(value)}."
        case Kind.Format(format="uri"):
            return "The value must be an absolute URL (https:, data: or another scheme)."
        case Kind.Pattern(pattern=pattern):
            return f"The value must match the pattern {pattern}"
        case Kind.FalseSchema():
            return "This is not allowed here."
        case Kind.Not():
            return "The value is one of those that are excluded here."
        case Kind.OneOfMultipleValid():
            return "The value fits more than one of the alternatives, of which exactly one must hold."
        case _:
            return error.message[:1].upper() + error.message[1:] + "."


# -- unions -----------------------------------------------------------------------------------------------------------


def _alternatives(error: Error) -> list[list[Error]]:
    """The faults of each alternative of a union that none of them fits; none for any other error."""
    match error.kind:
        case Kind.AnyOf(context=branches) | Kind.OneOfNotValid(context=branches):
            return [branch for branch in branches if branch]
    return []


def _told_of_union(error: Error) -> Iterator[tuple[Sequence[object], str]]:
    path = error.instance_path
    branches = _alternatives(error)
    near = [branch for branch in branches if not any(_of_another_shape(fault, path) for fault in branch)]
    if not near:  # of no alternative's type
        yield path, _none_of(branches)
        return
    meant = [branch for branch in near if not any(_of_another_kind(fault, path) for fault in branch)]
    if len(near) > 1 and not meant and (tag := _common_tag(near, path)) is not None:
        yield tag  # what tells the alternatives apart names none of them
        return
    if len(chosen := meant or near) == 1:
        yield from chain.from_iterable(map(_told, chosen[0]))
    else:
        yield path, _none_of(chosen)


def _of_another_shape(fault: Error, path: Sequence[object]) -> bool:
    """Whether an alternative is about another type of value altogether."""
    if list(fault.instance_path) != list(path):
        return False
    if branches := _alternatives(fault):
        return all(any(_of_another_shape(inner, path) for inner in branch) for branch in branches)
    return isinstance(fault.kind, ANOTHER_SHAPE)


def _of_another_kind(fault: Error, path: Sequence[object]) -> bool:
    """Whether an alternative is recognised by the one value of a property, and this is not its value."""
    return len(_only_value(fault)) == 1 and len(fault.instance_path) == len(path) + 1


def _common_tag(branches: Sequence[Sequence[Error]], path: Sequence[object]) -> tuple[Sequence[object], str] | None:
    tags = [fault for branch in branches for fault in branch if _of_another_kind(fault, path)]
    names = {fault.instance_path[-1] for fault in tags}
    if len(names) != 1 or len(tags) != len(branches):
        return None
    values = [value for fault in tags for value in _only_value(fault)]
    return [*path, names.pop()], f"The value must be {_or(map(_json, values))}."


def _only_value(fault: Error) -> Sequence[object]:
    match fault.kind:
        case Kind.Constant(expected_value=value) | Kind.Enum(options=[value]):
            return [value]
    return []


def _none_of(branches: Sequence[Sequence[Error]]) -> str:
    """Each alternative in a few words."""
    told = dict.fromkeys(_alternative(branch) for branch in branches)
    return "The value fits none of the alternatives: " + "; or ".join(told) + "."


def _alternative(branch: Sequence[Error]) -> str:
    reasons = []
    for path, message in chain.from_iterable(map(_told, branch)):
        own = list(path) == list(branch[0].instance_path)
        words = message.removeprefix("The value fits none of the alternatives: ").removeprefix("The value ")
        reasons.append(words.rstrip(".") if own else f"{path[-1] if path else ''}: {message.rstrip('.')}")
    return " and ".join(dict.fromkeys(reasons))


# -- words ------------------------------------------------------------------------------------------------------------


def _or(words: Iterable[str]) -> str:
    *rest, last = list(words) or ["nothing at all"]  # as an empty enum has it
    return f"{', '.join(rest)} or {last}" if rest else last


def _article(type_: str) -> str:
    return {"null": "null"}.get(type_, f"{'an' if type_[0] in 'aio' else 'a'} {type_}")


def _json(value: object) -> str:
    try:
        return dumps(value).decode()
    except TypeError:  # an integer that orjson does not write
        return str(value)


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
