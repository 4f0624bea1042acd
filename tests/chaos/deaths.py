"""What leads a replica to each point at which it is killed, and what must have come of it in the end.

To add a point: a line in STATEMENTS, MOVES or CALLS with the workload that comes by there; where none does, a new
workload. `via` are points to pass first, for what also happens while nothing is to be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import aio_pika
import aiohttp
import asyncpg

from service.postgres.database import Database
from service.postgres.store import RequestStore
from service.sandbox import Faults, Sandbox
from tests.integration.builders import ended
from tests.support.bus import Team, name_of
from tests.support.killable import Replica

REQUEST = {"request_id": "r", "input": {"prompt": "clip"}}
HOURS = 30.0  # of a test's patience: such a generation ends when the test says so


@dataclass(slots=True)
class Stage:
    """Where a workload plays."""

    team: Team
    hub: Sandbox
    database_url: str
    amqp_url: str
    replica: Replica | None = field(default=None)

    async def execute(self, *statements: str) -> None:
        """Meddles with the database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def until(self, question: str) -> None:
        """Waits until the database answers yes."""
        connection = await asyncpg.connect(self.database_url)
        try:
            async with asyncio.timeout(20):
                while not await connection.fetchval(question):
                    await asyncio.sleep(0.01)  # not every change has an event
        finally:
            await connection.close()

    async def in_state(self, state: str) -> None:
        """Waits until a request is in that state."""
        await self.until(f"select exists (select from requests where state = '{state}')")  # noqa: S608

    async def let_time_pass(self) -> None:
        """Leases and claims run out, as after six seconds, or thirty."""
        await self.execute(
            "do $$ begin if to_regclass('requests') is not null then "
            "update leadership set expires_at = '-infinity'; "
            "update requests set claim_expires_at = now() where state = 'submitting'; end if; end $$"
        )

    async def streaming(self) -> None:
        """Waits until a replica listens to the hub."""
        async with asyncio.timeout(20):
            while not len(self.hub.hub.broadcast):
                await asyncio.sleep(0.01)  # the sandbox has no signal for a stream

    async def told(self, name: str) -> None:
        """Waits for an event of that name."""
        await self.team.wait_for(lambda team: any(name_of(event) == name for event in team.events))

    def end_generations(self, most: int = 4) -> None:
        """Ends what is active at the hub, now."""
        for generation in list(self.hub.hub.ledger.active.values())[:most]:
            self.hub.hub._fall_due(generation)


class Workload:
    """One request that is played through; the others change what they need to."""

    ends: Mapping[str, str] = {"r": "succeeded"}  # the terminal event of each request
    bought: Mapping[str, int] = {"clip": 1}  # generations in the hub's ledger, by prompt
    dead: Mapping[str, str] = {}  # the reason of each quarantined message, by message id
    replies = 1  # different ones
    delay_s = 0.1  # from a POST to the end of its generation
    variables: Mapping[str, str] = {}

    async def prepare(self, stage: Stage) -> None:
        """Before the replica starts: what is sent here waits in the queue."""
        await stage.team.send(REQUEST, reply_to=stage.team.reply_to)

    async def play(self, stage: Stage) -> None:
        """While it lives."""

    async def heal(self, stage: Stage) -> None:
        """After its death, before another one starts."""
        stage.hub.faults = Faults()
        stage.end_generations()

    async def afterwards(self, stage: Stage) -> None:
        """While that one works."""


class TwoOutputs(Workload):
    """The first ends long before the second."""

    bought: Mapping[str, int] = {"clip": 2}
    delay_s = HOURS

    async def prepare(self, stage: Stage) -> None:
        await stage.team.send({**REQUEST, "num_generations": 2}, reply_to=stage.team.reply_to)

    async def play(self, stage: Stage) -> None:
        await stage.told("submitted")
        stage.end_generations(1)


class Repeated(Workload):
    """The same request again, once it has ended."""

    async def play(self, stage: Stage) -> None:
        await stage.team.end_of("r")
        await stage.team.send(REQUEST, reply_to=stage.team.reply_to)

    async def afterwards(self, stage: Stage) -> None:
        await stage.team.wait_for(lambda team: len(team.ends("r")) >= 2)


class Rejected(Workload):
    """An input that the model does not take."""

    ends: Mapping[str, str] = {"r": "rejected"}
    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        await stage.team.send({"request_id": "r", "input": {"seed": "x"}}, reply_to=stage.team.reply_to)


class Quarantined(Workload):
    """A message without a usable id."""

    ends: Mapping[str, str] = {}
    bought: Mapping[str, int] = {}
    dead: Mapping[str, str] = {"not an id": "invalid_message"}

    async def prepare(self, stage: Stage) -> None:
        await stage.team.send(b"{", message_id="not an id", reply_to=stage.team.reply_to)


class Conflicting(Workload):
    """A known id with other content."""

    dead: Mapping[str, str] = {"other": "idempotency_conflict"}
    replies = 2

    async def play(self, stage: Stage) -> None:
        await stage.team.end_of("r")
        other = {"request_id": "r", "input": {"prompt": "another"}}
        await stage.team.send(other, message_id="other", reply_to=stage.team.reply_to)


class Unanswered(Workload):
    """A POST that the hub has taken, and whose answer does not come."""

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.answer_delay_s = HOURS
        await super().prepare(stage)


class AnswerLost(Workload):
    """A POST whose connection was cut instead of an answer; its generation is still active when it is found."""

    delay_s = HOURS

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.answers_lost = 1.0
        await super().prepare(stage)


class AnswerLostAndEnded(AnswerLost):
    """The same; when it is looked for it has ended."""

    delay_s = 0.0


class NotTaken(Workload):
    """A gateway's 502 that the hub knows nothing of."""

    status = 502

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.post_status = self.status
        await super().prepare(stage)


class TurnedAway(NotTaken):
    """Too many requests."""

    status = 429


class Refused(NotTaken):
    """The hub does not want it, now or later."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {}
    status = 422

    async def heal(self, stage: Stage) -> None:
        """It still does not."""


class Undecidable(NotTaken):
    """A doubt that is old, and a hub that cannot be listed."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.list_status = 500
        await super().prepare(stage)

    async def play(self, stage: Stage) -> None:
        await stage.in_state("in_doubt")
        await stage.execute("update requests set doubted_at = now() - interval '1 day'")

    async def heal(self, stage: Stage) -> None:
        """It stays so."""


class AnsweredLate(Workload):
    """An answer that comes when the request is to be submitted again: the hub did not show for long what it had taken.

    With one slot the request waits until the answer has been written. Killed before that it is bought twice, which is
    one of the two causes that are written down: a hub that shows a generation later than the grace.
    """

    variables: Mapping[str, str] = {"DROVER_SUBMIT_CONCURRENCY": "1"}

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.hidden_s = HOURS
        await super().prepare(stage)

    async def play(self, stage: Stage) -> None:
        await stage.in_state("submitting")
        await stage.until("select exists (select from orphan_events)")  # so it is posted, and its end was heard
        await stage.let_time_pass()


class AnsweredTooLate(AnsweredLate):
    """The same, before it was written."""

    bought: Mapping[str, int] = {"clip": 2}


class Early(Workload):
    """The stream tells of the end before the POST is answered."""

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.answer_delay_s = 0.7

    async def play(self, stage: Stage) -> None:
        await stage.streaming()
        await stage.team.send(REQUEST, reply_to=stage.team.reply_to)


class FailedAtTheHub(Workload):
    """A generation that fails."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {"clip [fail]": 1}

    async def prepare(self, stage: Stage) -> None:
        await stage.team.send({"request_id": "r", "input": {"prompt": "clip [fail]"}}, reply_to=stage.team.reply_to)


class CancelledAtTheHub(Workload):
    """By somebody else; no event tells of it."""

    ends: Mapping[str, str] = {"r": "cancelled"}
    delay_s = HOURS

    async def play(self, stage: Stage) -> None:
        await stage.told("submitted")
        for generation in list(stage.hub.hub.ledger.active.values()):
            stage.hub.hub.cancel(generation)
        stage.hub.cut_streams()


class Cancelled(Workload):
    """Cancelled on request, with its generation under way."""

    ends: Mapping[str, str] = {"r": "cancelled"}
    delay_s = HOURS

    async def play(self, stage: Stage) -> None:
        await stage.told("submitted")
        await self.stop(stage)

    async def stop(self, stage: Stage) -> None:
        """And waits until that is noted."""
        await stage.team.cancel({"request_id": "r"})
        await stage.until("select exists (select from requests where stop_cause is not null)")

    async def heal(self, stage: Stage) -> None:
        stage.hub.faults = Faults()


class Expired(Cancelled):
    """Its deadline has come."""

    ends: Mapping[str, str] = {"r": "expired"}

    async def stop(self, stage: Stage) -> None:
        await stage.execute("update requests set deadline = now() where state not in ('expired', 'cancelled')")
        await stage.until("select exists (select from requests where stop_cause is not null)")


class CancelIgnored(Cancelled):
    """The hub says that it ends the generation, and does not."""

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.deletes_ignored = 1.0
        await super().prepare(stage)


class CancelledTooLate(CancelIgnored):
    """It goes on, and succeeds."""

    ends: Mapping[str, str] = {"r": "succeeded"}

    async def play(self, stage: Stage) -> None:
        await super().play(stage)
        stage.end_generations()

    async def heal(self, stage: Stage) -> None:
        """It has ended."""


class Held(Cancelled):
    """Cancelled while it waits: the hub wants to be asked again in an hour."""

    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.post_status, stage.hub.faults.retry_after = 429, "3600"
        await super().prepare(stage)

    async def play(self, stage: Stage) -> None:
        await stage.until("select exists (select from requests where state = 'accepted' and attempts = 1)")
        await self.stop(stage)


class HeldAndExpired(Held, Expired):
    """Its deadline comes while it waits."""

    ends: Mapping[str, str] = {"r": "expired"}


class CancelledBefore(Cancelled):
    """The cancel is there before its request."""

    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        await stage.team.cancel({"request_id": "r"})

    async def play(self, stage: Stage) -> None:
        await stage.until("select exists (select from early_cancels) or exists (select from requests)")
        await stage.team.send(REQUEST, reply_to=stage.team.reply_to)

    async def afterwards(self, stage: Stage) -> None:
        await self.play(stage)


class CancelledAfterwards(Workload):
    """What has ended is told once more to who cancels it."""

    async def play(self, stage: Stage) -> None:
        await stage.team.end_of("r")
        await stage.team.cancel({"request_id": "r"}, reply_to=stage.team.reply_to)

    async def afterwards(self, stage: Stage) -> None:
        await stage.team.wait_for(lambda team: len(team.ends("r")) >= 2)


class CancelledWhilePosting(Cancelled):
    """Between the claim and the outcome of the POST."""

    async def play(self, stage: Stage) -> None:
        await stage.in_state("submitting")
        await self.stop(stage)


class CancelledBeforePosting(CancelledWhilePosting):
    """After the claim, and the POST never comes."""

    bought: Mapping[str, int] = {}


class ExpiredWhilePosting(CancelledWhilePosting, Expired):
    """The deadline comes there."""


class AskedToWait(Workload):
    """The hub turns it away, and asks everybody to wait."""

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.post_status, stage.hub.faults.retry_after = 429, "1"
        await super().prepare(stage)


class WithinLimits(Workload):
    """Two, one at a time."""

    ends: Mapping[str, str] = {"r": "succeeded", "s": "succeeded"}
    bought: Mapping[str, int] = {"clip": 2}
    variables: Mapping[str, str] = {"DROVER_MAX_IN_FLIGHT": "1", "DROVER_SUBMIT_RATE_PER_S": "20"}

    async def prepare(self, stage: Stage) -> None:
        await super().prepare(stage)
        await stage.team.send({**REQUEST, "request_id": "s"})


class TurnedAwayAndCancelled(CancelledWhilePosting):
    """And the hub turns it away."""

    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults.post_status, stage.hub.faults.retry_after = 429, "3600"
        await super().prepare(stage)


class TurnedAwayAndExpired(TurnedAwayAndCancelled, ExpiredWhilePosting):
    """Its deadline comes, and the hub turns it away."""


class CancelledInDoubt(Cancelled):
    """While it is looked for. It is there."""

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults = Faults(answers_lost=1.0, list_status=500)
        await super().prepare(stage)

    async def play(self, stage: Stage) -> None:
        await stage.in_state("in_doubt")
        await self.stop(stage)
        stage.hub.faults = Faults()


class NotTakenAndCancelled(CancelledInDoubt):
    """It is not there."""

    bought: Mapping[str, int] = {}

    async def prepare(self, stage: Stage) -> None:
        stage.hub.faults = Faults(post_status=502, list_status=500)
        await Workload.prepare(self, stage)


class NotTakenAndExpired(NotTakenAndCancelled, Expired):
    """Its deadline comes while it is looked for."""

    ends: Mapping[str, str] = {"r": "expired"}


class CancelledOverHttp(Cancelled):
    """By a caller who gets no answer, and asks once more."""

    async def stop(self, stage: Stage) -> None:
        assert stage.replica is not None
        url = f"http://127.0.0.1:{stage.replica.port()}/v1/generations/r"
        async with aiohttp.ClientSession() as session:
            with suppress(aiohttp.ClientError):
                await session.delete(url, headers={"Content-Type": "application/json"})

    async def afterwards(self, stage: Stage) -> None:
        await stage.team.cancel({"request_id": "r"})


class QuarantinedCancel(Quarantined):
    """A cancel that names nothing."""

    async def prepare(self, stage: Stage) -> None:
        await stage.team.cancel(b"{", message_id="not an id", reply_to=stage.team.reply_to)


class RefusedEvent(Workload):
    """Somebody's queue takes no more events, and says so; it is gone later."""

    async def prepare(self, stage: Stage) -> None:
        await super().prepare(stage)
        async with await aio_pika.connect(stage.amqp_url) as connection:
            channel = await connection.channel()
            full = await channel.declare_queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
            await channel.default_exchange.publish(aio_pika.Message(b""), "full")
            await full.bind("generation.events", "generation.accepted")

    async def heal(self, stage: Stage) -> None:
        await super().heal(stage)
        async with await aio_pika.connect(stage.amqp_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("full")


class Terminated(Workload):
    """A clean shutdown."""

    async def play(self, stage: Stage) -> None:
        await stage.team.end_of("r")
        assert stage.replica is not None
        stage.replica.terminate()


class Old(Workload):
    """What the janitor takes away: a request that ended long ago, an answer, the end of somebody else's generation."""

    ends: Mapping[str, str] = {"r": "succeeded", "old": "succeeded"}
    bought: Mapping[str, int] = {"clip": 1, "once more": 1}

    async def prepare(self, stage: Stage) -> None:
        database = Database(stage.database_url, size=1)
        await database.open()
        await ended(RequestStore(database), "old")
        await database.close()
        await stage.execute(
            "update requests set finished_at = now() - interval '40 days'",
            "update outbox set published_at = now()",  # late, but it goes with its request all the same
            "insert into outbox (event_id, request_id, sequence, stored, terminal, type, body, next_attempt_at, "
            "published_at) values (gen_random_uuid(), 'bad', 1, false, true, 'x', '', now(), "
            "now() - interval '40 days')",
            "insert into orphan_events (generation_id, status, received_at) "
            "values ('foreign', 'succeeded', now() - interval '2 hours')",
            "insert into early_cancels (request_id, received_at) values ('never', now() - interval '2 days')",
        )
        await super().prepare(stage)

    async def afterwards(self, stage: Stage) -> None:
        await stage.until(
            "select not exists (select from requests where request_id = 'old') "
            "and not exists (select from outbox where request_id in ('old', 'bad')) "
            "and not exists (select from orphan_events where generation_id = 'foreign') "
            "and not exists (select from early_cancels)"
        )
        await stage.team.send({"request_id": "old", "input": {"prompt": "once more"}})


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
    "delete_published_events": Place(Old),
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
    "publish_event/generation.accepted": Place(Workload),
    "publish_event/generation.submitted": Place(Workload),
    "publish_event/generation.output": Place(TwoOutputs),
    "publish_event/generation.succeeded": Place(Workload),
    "publish_event/generation.rejected": Place(Rejected),
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
    "after:publish_event/generation.succeeded": (Place(Repeated, ("after:repeat_requests",)),),
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
