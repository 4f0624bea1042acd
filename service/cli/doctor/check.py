"""What a check says: how things are, and how to mend them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    """How bad it is. Only a fault keeps drover from doing its work."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    NOT_CHECKED = "not checked"


class Check(Struct, frozen=True):
    """One line of the report; every warning and fault has its remedy."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, Level.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Works, but not as it should, or not for long."""
    return Check(name, Level.WARNING, found, remedy)


def fault(name: str, found: str, remedy: str) -> Check:
    """Does not work."""
    return Check(name, Level.FAULT, found, remedy)


def not_checked(name: str, found: str) -> Check:
    """Could not be looked at, for a reason that another check has told."""
    return Check(name, Level.NOT_CHECKED, found)


def faulty(checks: Iterable[Check]) -> bool:
    """Whether anything does not work."""
    return any(check.level is Level.FAULT for check in checks)


def sentence(words: str) -> str:
    """With a capital letter."""
    return words[:1].upper() + words[1:]
