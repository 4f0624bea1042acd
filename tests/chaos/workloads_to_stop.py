"""Workloads with a request that is to end early: by a cancel or its deadline, in every state."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from service.sandbox import Faults
from tests.chaos.scene import Scene
from tests.chaos.workloads import HOURS, REQUEST, Quarantined, Workload


class Cancelled(Workload):
    """Cancelled on request, with its generation under way."""

    ends: Mapping[str, str] = {"r": "cancelled"}
    delay_s = HOURS

    async def play(self, scene: Scene) -> None:
        await scene.told("submitted")
        await self.stop(scene)

    async def stop(self, scene: Scene) -> None:
        """And waits until that is noted."""
        await scene.cancel({"request_id": "r"})
        await scene.until("select exists (select from requests where stop_cause is not null)")

    async def heal(self, scene: Scene) -> None:
        scene.hub.faults = Faults()


class Expired(Cancelled):
    """Its deadline has come."""

    ends: Mapping[str, str] = {"r": "expired"}

    async def stop(self, scene: Scene) -> None:
        await scene.execute("update requests set deadline = now() where state not in ('expired', 'cancelled')")
        await scene.until("select exists (select from requests where stop_cause is not null)")


class CancelIgnored(Cancelled):
    """The hub says that it ends the generation, and does not."""

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.deletes_ignored = 1.0
        await super().prepare(scene)


class CancelledTooLate(CancelIgnored):
    """It goes on, and succeeds."""

    ends: Mapping[str, str] = {"r": "succeeded"}

    async def play(self, scene: Scene) -> None:
        await super().play(scene)
        scene.end_generations()

    async def heal(self, scene: Scene) -> None:
        """It has ended."""


class Held(Cancelled):
    """Cancelled while it waits: the hub wants to be asked again in an hour."""

    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.post_status, scene.hub.faults.retry_after = 429, "3600"
        await super().prepare(scene)

    async def play(self, scene: Scene) -> None:
        await scene.until("select exists (select from requests where state = 'accepted' and attempts = 1)")
        await self.stop(scene)


class HeldAndExpired(Held, Expired):
    """Its deadline comes while it waits."""

    ends: Mapping[str, str] = {"r": "expired"}


class CancelledBefore(Cancelled):
    """The cancel is there before its request."""

    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        await scene.cancel({"request_id": "r"})

    async def play(self, scene: Scene) -> None:
        await scene.until("select exists (select from early_cancels) or exists (select from requests)")
        await scene.send(REQUEST, reply_to=scene.team.reply_to)

    async def afterwards(self, scene: Scene) -> None:
        await self.play(scene)


class CancelledAfterwards(Workload):
    """What has ended is told once more to who cancels it."""

    async def play(self, scene: Scene) -> None:
        await scene.team.end_of("r")
        await scene.cancel({"request_id": "r"}, reply_to=scene.team.reply_to)

    async def afterwards(self, scene: Scene) -> None:
        await scene.team.wait_for(lambda team: len(team.ends("r")) >= 2)


class CancelledWhilePosting(Cancelled):
    """Between the claim and the outcome of the POST."""

    async def play(self, scene: Scene) -> None:
        await scene.in_state("submitting")
        await self.stop(scene)


class CancelledBeforePosting(CancelledWhilePosting):
    """After the claim, and the POST never comes."""

    bought: Mapping[str, int] = {}


class ExpiredWhilePosting(CancelledWhilePosting, Expired):
    """The deadline comes there."""


class TurnedAwayAndCancelled(CancelledWhilePosting):
    """And the hub turns it away."""

    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults.post_status, scene.hub.faults.retry_after = 429, "3600"
        await super().prepare(scene)


class TurnedAwayAndExpired(TurnedAwayAndCancelled, ExpiredWhilePosting):
    """Its deadline comes, and the hub turns it away."""


class CancelledInDoubt(Cancelled):
    """While it is looked for. It is there."""

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults = Faults(answers_lost=1.0, list_status=500)
        await super().prepare(scene)

    async def play(self, scene: Scene) -> None:
        await scene.in_state("in_doubt")
        await self.stop(scene)
        scene.hub.faults = Faults()


class NotTakenAndCancelled(CancelledInDoubt):
    """It is not there."""

    bought: Mapping[str, int] = {}

    async def prepare(self, scene: Scene) -> None:
        scene.hub.faults = Faults(post_status=502, list_status=500)
        await Workload.prepare(self, scene)


class NotTakenAndExpired(NotTakenAndCancelled, Expired):
    """Its deadline comes while it is looked for."""

    ends: Mapping[str, str] = {"r": "expired"}


class CancelledOverHttp(Cancelled):
    """By a caller who gets no answer, and asks once more."""

    async def stop(self, scene: Scene) -> None:
        assert scene.replica is not None
        url = f"http://127.0.0.1:{scene.replica.port()}/v1/generations/r"
        async with aiohttp.ClientSession() as session:
            with suppress(aiohttp.ClientError):
                await session.delete(url, headers={"Content-Type": "application/json"})

    async def afterwards(self, scene: Scene) -> None:
        await scene.cancel({"request_id": "r"})


class QuarantinedCancel(Quarantined):
    """A cancel that names nothing."""

    async def prepare(self, scene: Scene) -> None:
        await scene.cancel(b"{", message_id="not an id", reply_to=scene.team.reply_to)
