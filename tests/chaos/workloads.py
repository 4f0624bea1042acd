"""What is asked of a replica that is killed on the way, and what must have come of it in the end."""

from __future__ import annotations

from collections.abc import Mapping

import aio_pika

from service.postgres.database import Database
from service.postgres.store import RequestStore
from service.sandbox import Faults
from tests.chaos.scene import Scene
from tests.integration.builders import ended

REQUEST = {"request_id": "r", "input": {"prompt": "clip"}}
HOURS = 30.0  # of a test's patience: such a generation ends when the test says so


class Workload:
    """One request that is played through; the others change what they need to."""

    ends: Mapping[str, str] = {"r": "succeeded"}  # the terminal event of each request
    bought: Mapping[str, int] = {"clip": 1}  # generations in the hub's ledger, by prompt
    dead: Mapping[str, str] = {}  # the reason of each quarantined message, by message id
    replies = 1  # different ones
    delay_s = 0.1  # from a POST to the end of its generation
    variables: Mapping[str, str] = {}

    async def prepare(self, scene: Scene) -> None:
        """Before the replica starts: what is sent here waits in the queue."""
        await scene.send(REQUEST, reply_to=scene.team.reply_to)

    async def play(self, scene: Scene) -> None:
        """While it lives."""

    async def heal(self, scene: Scene) -> None:
        """After its death, before another one starts."""
        scene.hub.faults = Faults()
        scene.end_generations()

    async def afterwards(self, scene: Scene) -> None:
        """While that one works."""


class TwoOutputs(Workload):
    """The first ends long before the second."""

    bought: Mapping[str, int] = {"clip": 2}
    delay_s = HOURS

    async def prepare(self, scene: Scene) -> None:
        await scene.send({**REQUEST, "num_generations": 2}, reply_to=scene.team.reply_to)

    async def play(self, scene: Scene) -> None:
        await scene.told("submitted")
        scene.end_generations(1)


class Repeated(Workload):
    """The same request again, once it has ended."""

    async def play(self, scene: Scene) -> None:
        await scene.team.end_of("r")
        await scene.send(REQUEST, reply_to=scene.team.reply_to)

    async def afterwards(self, scene: Scene) -> None:
        await scene.team.wait_for(lambda team: len(team.ends("r")) >= 2)


class Rejected(Workload):
    """An input that the model does not take."""

    ends: Mapping[str, str] = {"r": "rejected"}
    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        await scene.send({"request_id": "r", "input": {"seed": "x"}}, reply_to=scene.team.reply_to)


class Quarantined(Workload):
    """A message without a usable id."""

    ends: Mapping[str, str] = {}
    bought: Mapping[str, int] = {}
    dead: Mapping[str, str] = {"not an id": "invalid_message"}

    async def prepare(self, scene: Scene) -> None:
        await scene.send(b"{", message_id="not an id", reply_to=scene.team.reply_to)


class Conflicting(Workload):
    """A known id with other content."""

    dead: Mapping[str, str] = {"other": "idempotency_conflict"}
    replies = 2

    async def play(self, scene: Scene) -> None:
        await scene.team.end_of("r")
        other = {"request_id": "r", "input": {"prompt": "another"}}
        await scene.send(other, message_id="other", reply_to=scene.team.reply_to)


class Unanswered(Workload):
    """A POST that the hub has taken, and whose answer does not come."""

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.answer_delay_s = HOURS
        await super().prepare(scene)


class AnswerLost(Workload):
    """A POST whose connection was cut instead of an answer; its generation is still active when it is found."""

    delay_s = HOURS

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.answers_lost = 1.0
        await super().prepare(scene)


class AnswerLostAndEnded(AnswerLost):
    """The same; when it is looked for it has ended."""

    delay_s = 0.0


class NotTaken(Workload):
    """A gateway's 502 that the hub knows nothing of."""

    status = 502

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.post_status = self.status
        await super().prepare(scene)


class TurnedAway(NotTaken):
    """Too many requests."""

    status = 429


class AskedToWait(Workload):
    """The hub turns it away, and asks everybody to wait."""

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.post_status, scene.hub.faults.retry_after = 429, "1"
        await super().prepare(scene)


class WithinLimits(Workload):
    """Two, one at a time."""

    ends: Mapping[str, str] = {"r": "succeeded", "s": "succeeded"}
    bought: Mapping[str, int] = {"clip": 2}
    variables: Mapping[str, str] = {"DROVER_MAX_IN_FLIGHT": "1", "DROVER_SUBMIT_RATE_PER_S": "20"}

    async def prepare(self, scene: Scene) -> None:
        await super().prepare(scene)
        await scene.send({**REQUEST, "request_id": "s"})


class Refused(NotTaken):
    """The hub does not want it, now or later."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {}
    status = 422

    async def heal(self, scene: Scene) -> None:
        """It still does not."""


class Undecidable(NotTaken):
    """A doubt that is old, and a hub that cannot be listed."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.list_status = 500
        await super().prepare(scene)

    async def play(self, scene: Scene) -> None:
        await scene.in_state("in_doubt")
        await scene.execute("update requests set doubted_at = now() - interval '1 day'")

    async def heal(self, scene: Scene) -> None:
        """It stays so."""


class AnsweredLate(Workload):
    """An answer that comes when the request is to be submitted again: the hub did not show for long what it had taken.

    The replica that has the answer does not POST beside it. Killed before it was written the request is bought twice,
    which is one of the two causes that are written down: a hub that shows a generation later than the grace.
    """

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.hidden_s = HOURS
        await super().prepare(scene)

    async def play(self, scene: Scene) -> None:
        await scene.in_state("submitting")
        await scene.until("select exists (select from orphan_events)")  # so it is posted, and its end was heard
        await scene.let_time_pass()


class AnsweredTooLate(AnsweredLate):
    """The same, before it was written."""

    bought: Mapping[str, int] = {"clip": 2}


class Early(Workload):
    """The stream tells of the end before the POST is answered."""

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.answer_delay_s = 0.7

    async def play(self, scene: Scene) -> None:
        await scene.streaming()
        await scene.send(REQUEST, reply_to=scene.team.reply_to)


class FailedAtTheHub(Workload):
    """A generation that fails."""

    ends: Mapping[str, str] = {"r": "failed"}
    bought: Mapping[str, int] = {"clip [fail]": 1}

    async def prepare(self, scene: Scene) -> None:
        await scene.send({"request_id": "r", "input": {"prompt": "clip [fail]"}}, reply_to=scene.team.reply_to)


class CancelledAtTheHub(Workload):
    """By somebody else; no event tells of it."""

    ends: Mapping[str, str] = {"r": "cancelled"}
    delay_s = HOURS

    async def play(self, scene: Scene) -> None:
        await scene.told("submitted")
        for generation in list(scene.hub.hub.ledger.active.values()):
            scene.hub.hub.cancel(generation)
        scene.hub.cut_streams()


class RefusedEvent(Workload):
    """Somebody's queue takes no more events, and says so; it is gone later."""

    async def prepare(self, scene: Scene) -> None:
        await super().prepare(scene)
        async with await aio_pika.connect(scene.amqp_url) as connection:
            channel = await connection.channel()
            full = await channel.declare_queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
            await channel.default_exchange.publish(aio_pika.Message(b""), "full")
            await full.bind("generation.events", "generation.accepted")

    async def heal(self, scene: Scene) -> None:
        await super().heal(scene)
        async with await aio_pika.connect(scene.amqp_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("full")


class Terminated(Workload):
    """A clean shutdown."""

    async def play(self, scene: Scene) -> None:
        await scene.team.end_of("r")
        assert scene.replica is not None
        scene.replica.terminate()


class Old(Workload):
    """What the janitor takes away: a request that ended long ago, an answer, the end of somebody else's generation."""

    ends: Mapping[str, str] = {"r": "succeeded", "old": "succeeded"}
    bought: Mapping[str, int] = {"clip": 1, "once more": 1}

    async def prepare(self, scene: Scene) -> None:
        database = Database(scene.database_url, size=1)
        await database.open()
        await ended(RequestStore(database), "old")
        await database.close()
        await scene.execute(
            "update requests set finished_at = now() - interval '40 days'",
            "delete from unpublished",
            "insert into outbox (event_id, request_id, sequence, stored, terminal, type, body, created_at) "
            "values (gen_random_uuid(), 'bad', 1, false, true, 'x', '', now() - interval '40 days')",
            "insert into orphan_events (generation_id, status, received_at) "
            "values ('foreign', 'succeeded', now() - interval '2 hours')",
            "insert into early_cancels (request_id, received_at) values ('never', now() - interval '2 days')",
        )
        await super().prepare(scene)

    async def afterwards(self, scene: Scene) -> None:
        await scene.until(
            "select not exists (select from requests where request_id = 'old') "
            "and not exists (select from outbox where request_id in ('old', 'bad')) "
            "and not exists (select from orphan_events where generation_id = 'foreign') "
            "and not exists (select from early_cancels)"
        )
        await scene.send({"request_id": "old", "input": {"prompt": "once more"}})
