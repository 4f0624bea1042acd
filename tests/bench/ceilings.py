"""From CPU by process to ceilings: what the leader alone has to do, what any replica can, and what the servers take.

The followers' CPU for each request that they took is the work that any replica can do (`shared`); what the leader used
beyond that is the work that it alone can do (`own`). Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BATCHES = 2  # of events that the relay has under way at a time, in a backlog
KNEE = 0.7  # of a core: beyond it a replica's one thread is never idle, and what comes waits (the curve in CAPACITY.md)


@dataclass(frozen=True, slots=True)
class Member:
    """One replica in one run: CPU seconds, and how many requests it took (the mean of taken in and submitted)."""

    leads: bool
    cpu_s: float
    taken: float


@dataclass(frozen=True, slots=True)
class Split:
    """CPU seconds for 1,000 requests."""

    own: float
    shared: float


def split(members: Sequence[Member]) -> Split | None:
    """None where nobody but the leader took any: one replica does not tell what it would be spared."""
    taken = sum(member.taken for member in members)
    followed = sum(member.taken for member in members if not member.leads)
    if not followed:
        return None
    shared = sum(member.cpu_s for member in members if not member.leads) / followed
    own = sum(member.cpu_s - shared * member.taken for member in members if member.leads) / taken
    return Split(1000 * own, 1000 * shared)


def leader_bound(work: Split, replicas: int) -> float:
    """Requests a second when every replica has a core: the leader takes in what its own work leaves room for, and no
    number of followers brings more than its own work lets through."""
    return 1000 * min(replicas / (work.own + work.shared), 1 / work.own) if work.own > 0 else float("inf")


def even_bound(work: Split, replicas: int) -> float:
    """The same when the leader takes in as much as each other one: the broker's share when nobody is at the limit."""
    return 1000 / (work.own + work.shared / replicas)


def cores_bound(per_1000: float, cores: int) -> float:
    """Requests a second of a server that takes so many CPU seconds for 1,000 and uses its cores alike."""
    return 1000 * cores / per_1000 if per_1000 > 0 else float("inf")


def ceilings(runs: Sequence[dict[str, Any]]) -> str:
    """What runs come to, in Markdown: requests a second at a whole core, for several sizes. Medians of the runs."""
    works = [found for run in runs if (found := split([Member(**member) for member in run["members"]])) is not None]
    if not works:
        return "No ceilings: they take a run with two replicas or more."
    work = Split(statistics.median(one.own for one in works), statistics.median(one.shared for one in works))
    servers = {
        name: statistics.median(run["cpu_per_1000"][name] for run in runs if len(run["members"]) > 1)
        for name in ("postgres", "rabbitmq")
    }
    head = (
        f"CPU s per 1,000 requests: {work.own:.2f} that the leader alone can do, {work.shared:.2f} for any replica, "
        f"Postgres {servers['postgres']:.2f}, RabbitMQ {servers['rabbitmq']:.2f}."
    )
    lines = [
        head,
        "",
        "| bound by | requests a second at a whole core | at the knee (0.7 of it) |",
        "| --- | --- | --- |",
    ]
    rows = [
        (f"{n} replica(s), a core each, shared as the leader has room", leader_bound(work, n)) for n in (1, 2, 3, 4, 6)
    ]
    rows += [(f"{n} replicas, a core each, shared evenly", even_bound(work, n)) for n in (2, 3)]
    rows.append(("the leader's own work, any number of replicas", leader_bound(work, 10**6)))
    relay = statistics.median(BATCHES * run["per_s"] / run["relay_busy"] for run in runs if len(run["members"]) > 1)
    rows.append(("the leader's relay, as quick as its confirms came here", relay))
    rows += [(f"Postgres with {k} cores", cores_bound(servers["postgres"], k)) for k in (2, 4, 8)]
    rows += [(f"RabbitMQ with {k} cores", cores_bound(servers["rabbitmq"], k)) for k in (1, 2, 4)]
    lines += [f"| {name} | {bound:,.0f} | {KNEE * bound:,.0f} |" for name, bound in rows]
    return "\n".join(lines)
