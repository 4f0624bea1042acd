"""Every point at which a replica is killed, and the workload that leads it there.

To add a point: a line in STATEMENTS, MOVES or CALLS with the workload that comes by there; where none does, a new
workload. `via` are points to pass first, for what also happens while nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.workloads import (
    AnsweredLate,
    AnsweredTooLate,
    AnswerLost,
    AnswerLostAndEnded,
    AskedToWait,
    CancelledAtTheHub,
    Conflicting,
    Early,
    FailedAtTheHub,
    NotTaken,
    Old,
    Quarantined,
    Refused,
    RefusedEvent,
    Rejected,
    Repeated,
    Terminated,
    TurnedAway,
    TwoOutputs,
    Unanswered,
    Undecidable,
    WithinLimits,
    Workload,
)
from tests.chaos.workloads_to_stop import (
    CancelIgnored,
    Cancelled,
    CancelledAfterwards,
    CancelledBefore,
    CancelledBeforePosting,
    CancelledInDoubt,
    CancelledOverHttp,
    CancelledTooLate,
    CancelledWhilePosting,
    Expired,
    Held,
    HeldAndExpired,
    NotTakenAndCancelled,
    NotTakenAndExpired,
    QuarantinedCancel,
    TurnedAwayAndCancelled,
    TurnedAwayAndExpired,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica is killed, before and after: what leads there, and what is passed on the way."""

    workload: type[Workload]
    via: tuple[str, ...] = ()
    before: type[Workload] | None = None  # where the death before has another end


STOP_WHILE_POSTING = ("hold:before:submit", "after:apply/submitting-submitting")
# Every statement that writes, save `apply`: its moves are below.
STATEMENTS: Mapping[str, Place] = {
    "insert_requests": Place(Workload),
    "repeat_requests": Place(Repeated),
    "insert_answers": Place(Rejected),
    "claim": Place(Workload, ("after:insert_requests",)),
    "lock_limits": Place(WithinLimits, ("after:insert_requests",)),
    "hold_off": Place(AskedToWait),
    "promote": Place(TurnedAway, ("after:apply/submitting-accepted",)),
    "insert_orphans": Place(Early),
    "keep_early_cancels": Place(CancelledBefore),
    "forget_cancels": Place(CancelledBefore),
    "repeat_ends": Place(CancelledAfterwards),
    "mark_published": Place(Workload),
    "mark_failed": Place(RefusedEvent),
    "take_lease": Place(Workload),
    "note_stream_opened": Place(Workload),
    "give_back_lease": Place(Terminated),
    "delete_ended_requests": Place(Old),
    "delete_old_answers": Place(Old),
    "delete_old_orphans": Place(Old),
    "delete_old_cancels": Place(Old),
}
# Every move that a decision can make.
MOVES: Mapping[str, Place] = {
    "accepted-submitted": Place(AnsweredLate, ("hold:after:submit", "after:apply/in_doubt-accepted"), AnsweredTooLate),
    "accepted-cancelled": Place(Held),
    "accepted-expired": Place(HeldAndExpired),
    "submitting-submitted": Place(Workload),
    "submitting-accepted": Place(TurnedAway),
    "submitting-in_doubt": Place(AnswerLost),
    "submitting-failed": Place(Refused),
    "submitting-submitting": Place(CancelledBeforePosting, ("hold:before:submit",)),
    "submitting-cancelling": Place(CancelledWhilePosting, STOP_WHILE_POSTING),
    "submitting-cancelled": Place(TurnedAwayAndCancelled, STOP_WHILE_POSTING),
    "submitting-expired": Place(TurnedAwayAndExpired, STOP_WHILE_POSTING),
    "in_doubt-submitted": Place(AnswerLost),
    "in_doubt-succeeded": Place(AnswerLostAndEnded),
    "in_doubt-in_doubt": Place(NotTaken),
    "in_doubt-accepted": Place(NotTaken),
    "in_doubt-failed": Place(Undecidable),
    "in_doubt-cancelling": Place(CancelledInDoubt),
    "in_doubt-cancelled": Place(NotTakenAndCancelled),
    "in_doubt-expired": Place(NotTakenAndExpired),
    "submitted-submitted": Place(TwoOutputs),
    "submitted-succeeded": Place(Workload),
    "submitted-failed": Place(FailedAtTheHub),
    "submitted-cancelled": Place(CancelledAtTheHub),
    "submitted-cancelling": Place(Cancelled),
    "cancelling-cancelling": Place(CancelIgnored),
    "cancelling-cancelled": Place(Cancelled),
    "cancelling-expired": Place(Expired),
    "cancelling-succeeded": Place(CancelledTooLate),
}
# Every call that leaves something outside: at the broker, at the hub.
CALLS: Mapping[str, Place] = {
    "acknowledge": Place(Workload),
    "submit": Place(Workload),
    "cancel": Place(Cancelled),
    "publish_events/generation.accepted": Place(Workload),
    "publish_events/generation.submitted": Place(Workload),
    "publish_events/generation.output": Place(TwoOutputs),
    "publish_events/generation.succeeded": Place(Workload),
    "publish_events/generation.rejected": Place(Rejected),
    "publish_command": Place(CancelledOverHttp),
    "publish_reply": Place(Workload),
    "quarantine": Place(Quarantined),
}
# The same places once more, on another way; and in the midst of a call.
MORE: Mapping[str, tuple[Place, ...]] = {
    "during:submit": (Place(Unanswered),),
    "before:claim": (Place(WithinLimits, ("after:lock_limits",)),),
    "after:claim": (Place(WithinLimits, ("after:lock_limits",)),),
    "before:insert_answers": (Place(Quarantined, ("after:quarantine",)),),
    "after:insert_answers": (Place(Quarantined, ("after:quarantine",)),),
    "before:acknowledge": (
        Place(Quarantined, ("after:insert_answers",)),
        Place(Cancelled, ("after:apply/submitted-cancelling",)),
    ),
    "after:acknowledge": (Place(Cancelled, ("after:apply/submitted-cancelling",)),),
    "before:quarantine": (Place(Conflicting), Place(QuarantinedCancel)),
    "after:quarantine": (Place(Conflicting), Place(QuarantinedCancel)),
    "after:publish_events/generation.succeeded": (Place(Repeated, ("after:repeat_requests",)),),
    "before:apply/in_doubt-in_doubt": (Place(CancelledInDoubt),),
    "after:apply/in_doubt-in_doubt": (Place(CancelledInDoubt),),
}
Death = tuple[tuple[str, ...], type[Workload]]


def deaths() -> Mapping[str, Death]:
    """Every way to a death with the workload that goes it, by a name for the test."""
    places = {**STATEMENTS, **{f"apply/{move}": place for move, place in MOVES.items()}, **CALLS}
    found: dict[str, Death] = {}
    for name, place in places.items():
        found[f"before:{name}"] = ((*place.via, f"before:{name}"), place.before or place.workload)
        found[f"after:{name}"] = ((*place.via, f"after:{name}"), place.workload)
    for point, others in MORE.items():
        for place in others:
            found[f"{point} ({place.workload.__name__})"] = ((*place.via, point), place.workload)
    return found
