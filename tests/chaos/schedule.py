"""When which fault strikes: a seed and options in, a list out. Pure: the same seed gives the same schedule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    """What is done to the service or to what it stands on."""

    KILL_LEADER = "kill the leader"  # SIGKILL; a new replica takes its place
    KILL_FOLLOWER = "kill a follower"  # the same for one that does not lead
    FREEZE_LEADER = "freeze the leader"  # SIGSTOP, for longer than the lease, then SIGCONT
    KILL_BROKER = "kill the broker"  # SIGKILL of the node, then a start
    RESTART_DATABASE = "restart the database"  # an immediate shutdown, then a start
    CUT_STREAM = "cut the stream"  # at the hub, where it stands


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault, `at_s` seconds after the traffic began. `for_s`: how long a freeze or an outage lasts (a server's own
    start comes on top). `pick` in [0, 1) chooses among several victims."""

    at_s: float
    kind: FaultKind
    for_s: float = 0.0
    pick: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of what. Ranges are (least, most) in seconds; the faults fall between `quiet_s` and `seconds`."""

    seconds: float = 150.0
    quiet_s: float = 5.0
    kills: int = 10
    freezes: int = 3
    broker_kills: int = 2
    database_restarts: int = 2
    freeze_s: tuple[float, float] = (7.0, 16.0)  # the lease is good for 6 s, a claim for 10 s more than a POST
    outage_s: tuple[float, float] = (0.0, 2.0)
    cut_every_s: tuple[float, float] = (2.0, 6.0)


def schedule(seed: int, options: Options) -> list[Fault]:
    """All faults of a run in the order of time. Faults of one kind keep a distance, those of several kinds need not."""
    random = Random(f"{seed}/schedule")  # noqa: S311 - to be repeated, not to be secret
    faults: list[Fault] = []
    for index, at_s in enumerate(_spread(random, options.kills, options)):
        # Every other one strikes the leader: it has the most to lose.
        kind = FaultKind.KILL_FOLLOWER if index % 2 else FaultKind.KILL_LEADER
        faults.append(Fault(at_s, kind, pick=random.random()))
    for kind, count, lasting in (
        (FaultKind.FREEZE_LEADER, options.freezes, options.freeze_s),
        (FaultKind.KILL_BROKER, options.broker_kills, options.outage_s),
        (FaultKind.RESTART_DATABASE, options.database_restarts, options.outage_s),
    ):
        faults += [Fault(at_s, kind, for_s=_within(random, lasting)) for at_s in _spread(random, count, options)]
    at_s = options.quiet_s
    while at_s < options.seconds:
        faults.append(Fault(at_s, FaultKind.CUT_STREAM))
        at_s += _within(random, options.cut_every_s)
    return sorted(faults)


def _spread(random: Random, count: int, options: Options) -> list[float]:
    """One moment in the middle three fifths of each of `count` equal stretches of the run."""
    if not count:
        return []
    stretch = (options.seconds - options.quiet_s) / count
    return [options.quiet_s + (index + 0.2 + 0.6 * random.random()) * stretch for index in range(count)]


def _within(random: Random, bounds: tuple[float, float]) -> float:
    return random.uniform(*bounds)
