"""How long things took to mend, and how long a generation's end took to reach the consumer. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.chaos.evidence import TERMINAL, Evidence, Incident, LogLine
from tests.chaos.schedule import FaultKind

# Who else is away, or busy coming back, while somebody should take over.
HINDERING = frozenset(
    {FaultKind.KILL_LEADER, FaultKind.FREEZE_LEADER, FaultKind.RESTART_DATABASE, FaultKind.KILL_BROKER}
)
HAND_OVER_S = 10.0
SETTLING_S = 5.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kind of mending: the seconds of each time that it was seen, and how often it was never seen."""

    what: str
    seconds: tuple[float, ...]
    missing: int = 0

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Everything that can be measured; what never happened is left out."""
    opened = [line for line in evidence.log if line.event == "stream.opened"]
    started = [line for line in evidence.log if line.event == "consumer.started"]
    relayed = [line.at for line in evidence.log if line.event == "relay.batch" and line.fields.get("published")]
    committed = [line.at for line in evidence.log if line.event.startswith("request.")]
    streams = [span.opened_at for span in evidence.streams]
    all_of = _of_kind(evidence.incidents)
    alone = _alone(evidence.incidents)
    found = [
        *(
            _measure(
                f"leader {'killed' if kind is FaultKind.KILL_LEADER else 'frozen'} -> stream opened again, {amid}",
                ((one.began_at, [line.at for line in opened]) for one in all_of(kind) if alone(one) is wanted),
            )
            for kind in (FaultKind.KILL_LEADER, FaultKind.FREEZE_LEADER)
            for wanted, amid in ((True, "alone"), (False, "amid other faults"))
        ),
        _measure(
            "replica killed -> another one consumes in its place",
            (
                (one.began_at, [line.at for line in started])
                for one in all_of(FaultKind.KILL_LEADER, FaultKind.KILL_FOLLOWER)
            ),
        ),
        _measure("broker killed -> it answers again", _outages(all_of(FaultKind.KILL_BROKER))),
        _measure(
            "broker answers -> first batch of events published",
            ((one.ended_at, relayed) for one in all_of(FaultKind.KILL_BROKER)),
        ),
        _measure("database shut down -> it answers again", _outages(all_of(FaultKind.RESTART_DATABASE))),
        _measure(
            "database answers -> first commit",
            ((one.ended_at, committed) for one in all_of(FaultKind.RESTART_DATABASE)),
        ),
        _measure("stream cut -> open again", ((one.began_at, streams) for one in all_of(FaultKind.CUT_STREAM))),
        _measure("stream opened -> gap swept", ((line.at, _sweeps(evidence.log, line)) for line in opened)),
        _measure("hub's end -> end at the consumer", _deliveries(evidence)),
    ]
    return [recovery for recovery in found if recovery.seconds or recovery.missing]


def _measure(what: str, cases: Iterable[tuple[float, Sequence[float]]]) -> Recovery:
    """From each moment to the first later one of its candidates (which are in the order of time)."""
    seconds, missing = [], 0
    for since, candidates in cases:
        index = bisect_right(candidates, since)
        if index == len(candidates):
            missing += 1
        else:
            seconds.append(candidates[index] - since)
    return Recovery(what, tuple(seconds), missing)


def _of_kind(incidents: Sequence[Incident]) -> Callable[..., list[Incident]]:
    return lambda *kinds: [incident for incident in incidents if incident.kind in kinds]


def _alone(incidents: Sequence[Incident]) -> Callable[[Incident], bool]:
    """Whether no other fault that hinders a hand-over lasted within its time."""
    hindering = [incident for incident in incidents if incident.kind in HINDERING]
    return lambda one: (
        not any(
            other is not one
            and other.began_at < one.began_at + HAND_OVER_S
            and other.ended_at + SETTLING_S > one.began_at
            for other in hindering
        )
    )


def _outages(incidents: Iterable[Incident]) -> list[tuple[float, list[float]]]:
    return [(incident.began_at, [incident.ended_at]) for incident in incidents]


def _sweeps(log: Iterable[LogLine], opened: LogLine) -> list[float]:
    return [line.at for line in log if line.event == "sweep.done" and line.replica == opened.replica]


def _deliveries(evidence: Evidence) -> list[tuple[float, list[float]]]:
    """Of every generation that ended: when the hub ended it, and when the end of its request was first heard."""
    ended = {g.generation_id: g.ended_at for g in evidence.bought if g.ended_at is not None}
    first: dict[str, tuple[float, list[float]]] = {}
    for event in evidence.heard:
        if event.name in TERMINAL and event.request_id not in first:
            moments = [ended[key] for key, _, _ in event.outputs if key is not None and key in ended]
            if moments:
                first[event.request_id] = (max(moments), [event.at])
    return list(first.values())
