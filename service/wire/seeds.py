"""Where a schema has room for an integer `seed`: through local references, unions and intersections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from service.wire.dialects import resolve

SEED_LIMIT = 2**31 - 1  # every model that takes a seed takes one of 31 bits
MAX_ROOMS = 64

Room = tuple[int, int]
"""From and to, both included."""

Rooms = tuple[Room, ...]
ALL: Rooms = ((0, SEED_LIMIT),)


def seed_rooms(root: Mapping[str, Any]) -> Rooms:
    """The integers that some `seed` of this schema may be; none when it has no `seed` that takes an integer."""
    rooms: Rooms = ()
    for seed in _properties(root, root, frozenset()):
        rooms += tuple(room for room in _rooms(root, seed, frozenset()) if room not in rooms)
    return rooms[:MAX_ROOMS]


def is_plain(root: Mapping[str, Any]) -> bool:
    """Whether every input may have the `seed`, not only those of one alternative."""
    properties = root.get("properties")
    return isinstance(properties, Mapping) and "seed" in properties and "$ref" not in root


def _properties(root: Mapping[str, Any], node: object, path: frozenset[int]) -> Iterator[object]:
    """Every subschema that speaks of the `seed` of an input."""
    if not isinstance(node, Mapping) or id(node) in path:
        return
    path |= {id(node)}
    properties = node.get("properties")
    if isinstance(properties, Mapping) and "seed" in properties:
        yield properties["seed"]
    for key in ("allOf", "anyOf", "oneOf"):
        for member in _members(node, key):
            yield from _properties(root, member, path)
    for key in ("then", "else"):
        yield from _properties(root, node.get(key), path)
    yield from _properties(root, resolve(root, node.get("$ref")), path)


def _rooms(root: Mapping[str, Any], node: object, path: frozenset[int]) -> Rooms:
    if not isinstance(node, Mapping):  # true says nothing of integers
        return ()
    if id(node) in path:
        return ALL
    path |= {id(node)}
    rooms = _own_rooms(node)
    together = [*_members(node, "allOf"), *([resolve(root, node["$ref"])] if "$ref" in node else [])]
    for member in together:
        rooms = _common(rooms, _rooms(root, member, path))
    for key in ("anyOf", "oneOf"):
        members = _members(node, key)
        if members:
            rooms = _common(rooms, tuple(room for member in members for room in _rooms(root, member, path)))
    return rooms


def _own_rooms(node: Mapping[str, Any]) -> Rooms:
    types = node.get("type", "integer")
    if not {"integer", "number"}.intersection([types] if isinstance(types, str) else types):
        return ()
    room = max(0, _lowest(node)), min(SEED_LIMIT, _highest(node))
    rooms: Rooms = (room,) if room[0] <= room[1] else ()
    if "const" in node:
        rooms = _common(rooms, _single([node["const"]]))
    if isinstance(node.get("enum"), list):
        rooms = _common(rooms, _single(node["enum"]))
    return rooms


def _lowest(node: Mapping[str, Any]) -> int:
    low: float = node.get("minimum", 0)
    exclusive: float | bool | None = node.get("exclusiveMinimum")
    if isinstance(exclusive, bool):  # draft 4
        return math.floor(low) + 1 if exclusive else math.ceil(low)
    return math.ceil(low) if exclusive is None else max(math.ceil(low), math.floor(exclusive) + 1)


def _highest(node: Mapping[str, Any]) -> int:
    high: float = node.get("maximum", SEED_LIMIT)
    exclusive: float | bool | None = node.get("exclusiveMaximum")
    if isinstance(exclusive, bool):
        return math.ceil(high) - 1 if exclusive else math.floor(high)
    return math.floor(high) if exclusive is None else min(math.floor(high), math.ceil(exclusive) - 1)


def _single(values: list[object]) -> Rooms:
    return tuple((value, value) for value in values if type(value) is int)[:MAX_ROOMS]


def _common(one: Rooms, other: Rooms) -> Rooms:
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return tuple(pair for pair in pairs if pair[0] <= pair[1])[:MAX_ROOMS]


def _members(node: Mapping[str, Any], key: str) -> list[object]:
    members = node.get(key)
    return members if isinstance(members, list) else []
