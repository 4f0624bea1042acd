"""Verdicts about clocks: ours, the database's and the hub's must agree, and the odd one out is named."""

from __future__ import annotations

from msgspec import Struct

from service.cli.doctor.check import Check, fault, not_checked, ok, warning
from service.domain.matching import CLOCK_SKEW

NOTABLE_S = 5.0
MOST_S = CLOCK_SKEW.total_seconds()
CONSEQUENCE = {
    "database": "Back-offs, leases and deadlines are then early or late",
    "hub": "A generation whose POST was in doubt is then not recognised, and may be paid for twice",
}


class Reading(Struct, frozen=True):
    """A clock `ahead_s` of ours, known to `off_by_s` seconds."""

    ahead_s: float
    off_by_s: float


def judge_clocks(database: Reading | None, hub: Reading | None) -> list[Check]:
    """One verdict for each; None: it could not be read."""
    both = database is not None and hub is not None and _agree(database, hub)
    checks = []
    for name, reading, other in (("database", database, hub), ("hub", hub, database)):
        if reading is None:
            checks.append(not_checked(f"clock.{name}", "It could not be read."))
        else:
            checks.append(_judge(name, reading, ours=both, compared=other is not None))
    return checks


def _judge(name: str, reading: Reading, *, ours: bool, compared: bool) -> Check:
    skew = max(0.0, abs(reading.ahead_s) - reading.off_by_s)
    side = "ahead of" if reading.ahead_s > 0 else "behind"
    told = f"The {name}'s clock is {_duration(abs(reading.ahead_s))} {side} ours"
    if skew < NOTABLE_S:
        return ok(
            f"clock.{name}", f"The {name}'s clock and ours agree within {_duration(abs(reading.ahead_s) + 0.05)}."
        )
    if ours:
        told += ", and so is the other one: this machine's clock is wrong"
    if ours or not compared:
        remedy = "Set this machine's clock by NTP (`timedatectl set-ntp true`)"
        remedy += "." if ours else f"; when it is right, the {name}'s is to be set."
    elif name == "database":
        remedy = "Set the clock of the database's machine by NTP."
    else:
        remedy = (
            "Our clock agrees with the database's: tell the hub's operators, or look for a proxy that rewrites Date."
        )
    judge = fault if skew >= MOST_S else warning
    return judge(f"clock.{name}", f"{told}. {CONSEQUENCE[name]}.", remedy)


def _agree(one: Reading, other: Reading) -> bool:
    """Whether both are off, by the same."""
    off = min(abs(one.ahead_s), abs(other.ahead_s)) >= NOTABLE_S
    return off and abs(one.ahead_s - other.ahead_s) < NOTABLE_S + one.off_by_s + other.off_by_s


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
