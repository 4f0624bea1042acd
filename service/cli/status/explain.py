"""Where a request is, in plain words: what its row and its events say, turned into sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from service.cli.moments import clock, since, span, until
from service.domain.patience import Patience
from service.domain.states import Output, RequestState, StopCause
from service.domain.stored import StoredEvent, StoredRequest

PATIENCE = Patience()
LOOKS = 2  # complete ones without it, before a request in doubt is submitted again
LONG_S = 60.0  # to wait for a claim: then something keeps it
SOON = "A replica that runs takes it within a second."


class Surroundings(Struct, frozen=True):
    """What a request may be waiting for: who leads, and for how long the hub wants no POSTs."""

    leader: str | None = None
    hub_wants_nothing_s: float = 0.0
    doubt_grace_s: float = 15.0


class Explanation(Struct, frozen=True):
    """`now` says where it is, `waits_for` what moves it on ("" once it has ended), `advice` what an operator may do."""

    now: str
    waits_for: str = ""
    advice: str = ""


def explain(stored: StoredRequest, events: Sequence[StoredEvent], around: Surroundings, now: datetime) -> Explanation:
    """One request. What is not published yet of one that has ended is what it waits for."""
    match stored.request.state:
        case RequestState.ACCEPTED:
            found = _accepted(stored, around, now)
        case RequestState.SUBMITTING:
            found = _submitting(stored, now)
        case RequestState.IN_DOUBT:
            found = _in_doubt(stored, around, now)
        case RequestState.SUBMITTED:
            found = _submitted(stored, now)
        case RequestState.CANCELLING:
            found = _cancelling(stored, now)
        case _:
            return _ended(stored, events, around, now)
    return _overdue(found, stored, around, now)


def _accepted(stored: StoredRequest, around: Surroundings, now: datetime) -> Explanation:
    request = stored.request
    told = f"Accepted {since(request.received_at, now)}, not at the hub yet"
    if request.attempts:
        told += f"; {request.attempts} attempt(s) did not reach it, or were turned away unread"
    if stored.next_attempt_at is not None and stored.next_attempt_at > now:
        return Explanation(
            f"{told}.",
            f"It waits for a back-off until {until(stored.next_attempt_at, now)}; then any replica may claim it.",
            "The line `request.requeued` in the replicas' log says why.",
        )
    if around.hub_wants_nothing_s > 0:
        return Explanation(
            f"{told}.",
            f"The hub wants no POSTs for {span(around.hub_wants_nothing_s)} more (Retry-After); then it is claimed.",
            "DROVER_SUBMIT_RATE_PER_S would keep below the hub's limit.",
        )
    if (now - request.received_at).total_seconds() < LONG_S:
        return Explanation(f"{told}.", f"It waits for a replica to claim it, in its turn. {SOON}")
    return Explanation(
        f"{told}.",
        "It waits for a replica to claim it, and that for long.",
        "Either no replica runs, or submission is paused (/readyz says so under `paused`; `drover doctor` finds why), "
        "or DROVER_MAX_IN_FLIGHT or DROVER_SUBMIT_RATE_PER_S is used up, or others are before it, or a request of the "
        "same content is being submitted (one without a seed goes one at a time).",
    )


def _submitting(stored: StoredRequest, now: datetime) -> Explanation:
    request, replica = stored.request, stored.claimed_by or "a replica"
    began = "" if stored.attempted_at is None else f", since {since(stored.attempted_at, now)}"
    told = f"{replica} is sending it to the hub: attempt {request.attempts}{began}."
    if stored.claim_expires_at is None or stored.claim_expires_at > now:
        ends = (
            "" if stored.claim_expires_at is None else f" Its claim holds until {until(stored.claim_expires_at, now)}."
        )
        return Explanation(told, f"It waits for the hub's answer to the POST.{ends}")
    return Explanation(
        told,
        f"The claim ran out {since(stored.claim_expires_at, now)}, so the replica has died or hangs. The leader takes "
        "the request for in doubt, and looks for it at the hub.",
    )


def _in_doubt(stored: StoredRequest, around: Surroundings, now: datetime) -> Explanation:
    doubted = stored.doubted_at or now
    looks = stored.request.doubt_looks
    told = (
        f"In doubt since {since(doubted, now)}: the answer to attempt {stored.request.attempts} was lost, so the hub "
        "may have taken it."
    )
    grace_left = around.doubt_grace_s - (now - doubted).total_seconds()
    if grace_left > 0:
        step = f"The leader looks for it in the hub's lists; what they do not show counts in {span(grace_left)}."
    else:
        step = f"The leader looks for it in the hub's lists: {looks} of {LOOKS} complete looks have not shown it."
    patience_s = around.doubt_grace_s + PATIENCE.doubt.total_seconds()
    return Explanation(
        told,
        f"{step} Found, it is adopted; not found, it is submitted again; undecided after {span(patience_s)}, it "
        "fails as outcome_unknown.",
        "Nothing is repeated before that: it could be paid for twice.",
    )


def _submitted(stored: StoredRequest, now: datetime) -> Explanation:
    request = stored.request
    active = [output for output in request.outputs if not output.status.ended]
    when = "" if request.submitted_at is None else f" since {since(request.submitted_at, now)}"
    return Explanation(
        f"At the hub{when}: {_count(request.outputs)}.",
        f"It waits for the hub to end {_names(active)}: its event tells, and the leader's sweep what no event told."
        + _denied(active, now),
    )


def _cancelling(stored: StoredRequest, now: datetime) -> Explanation:
    request = stored.request
    active = [output for output in request.outputs if not output.status.ended]
    asked = "" if request.stop_requested_at is None else f" since {since(request.stop_requested_at, now)}"
    why = "its deadline passed" if request.stop_cause is StopCause.DEADLINE else "somebody cancelled it"
    look = "" if stored.next_attempt_at is None else f" The leader asks again at {until(stored.next_attempt_at, now)}."
    return Explanation(
        f"Being ended{asked}, because {why}: {_count(request.outputs)}.",
        f"It waits for the hub to end {_names(active)}.{look} After {span(PATIENCE.stop.total_seconds())} in vain, "
        f"what is left fails as upstream_lost.{_denied(active, now)}",
    )


def _ended(stored: StoredRequest, events: Sequence[StoredEvent], around: Surroundings, now: datetime) -> Explanation:
    request = stored.request
    when = "" if request.finished_at is None else f" {since(request.finished_at, now)}"
    verbs = {RequestState.CANCELLED: "Cancelled", RequestState.EXPIRED: "Expired, past its deadline,"}
    told = f"{verbs.get(request.state, request.state.value.capitalize())}{when}"
    if request.error is not None:
        told += f": {request.error.code}, {request.error.message.removesuffix('.')}"
    waiting = [event for event in events if not event.published]
    if not waiting:
        return Explanation(f"{told}.")
    return Explanation(f"{told}.", " ".join(_unpublished(waiting, around, now)), _without_leader(around))


def _unpublished(waiting: Sequence[StoredEvent], around: Surroundings, now: datetime) -> Iterator[str]:
    first = waiting[0]
    made = since(first.created_at, now)
    yield f"{len(waiting)} of its events wait for the relay; the first is {first.name}, made {made}."
    if first.next_attempt_at is not None and first.next_attempt_at > now:
        again = until(first.next_attempt_at, now)
        yield f"It could not be published {first.failures} time(s), and is tried again at {again}."
    elif around.leader is not None:
        yield f"The leader, {around.leader}, publishes it as soon as the broker takes it."


def _overdue(found: Explanation, stored: StoredRequest, around: Surroundings, now: datetime) -> Explanation:
    """What is true of each that has not ended: its deadline, and that somebody must lead."""
    waits_for = found.waits_for
    if stored.deadline <= now and stored.request.stop_cause is None:
        waits_for += f" Its deadline was {since(stored.deadline, now)}: the leader ends it."
    advice = " ".join(part for part in (found.advice, _without_leader(around)) if part)
    return Explanation(found.now, waits_for, advice)


def _without_leader(around: Surroundings) -> str:
    return "" if around.leader is not None else "Nobody leads: nothing is heard of the hub, and nothing is published."


def _count(outputs: Sequence[Output]) -> str:
    counted: dict[str, int] = {}
    for output in outputs:
        word = "lost" if output.lost else output.status.value
        counted[word] = counted.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in counted.items()) or "no outputs"


def _names(outputs: Sequence[Output]) -> str:
    return ", ".join(output.generation_id or f"output {output.index}" for output in outputs) or "its outputs"


def _denied(outputs: Sequence[Output], now: datetime) -> str:
    denied = [output for output in outputs if output.missing_since is not None]
    if not denied:
        return ""
    first = min(output.missing_since for output in denied if output.missing_since is not None)
    return (
        f" The hub has denied knowing {_names(denied)} since {clock(first, now)}; after "
        f"{span(PATIENCE.missing.total_seconds())} of that it is lost."
    )
