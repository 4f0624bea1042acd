"""Cancels from the bus: applied to what is known, kept for what is not, repeated to who cancels what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from service.clock import utc_now
from service.domain.errors import TransientError
from service.domain.facts import StopRequested
from service.domain.messages import Cancel
from service.domain.states import Fault, StopCause
from service.supervisor import run_together
from service.telemetry import Metrics
from service.wire.cancels import read_cancel
from service.workers.backpressure import held_back
from service.workers.batches import Batches
from service.workers.ports import Delivery, Inbox, Store
from service.workers.quarantine import Quarantine, Refusal
from service.workers.settler import Case, Elsewhere, Settler
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
AT_ONCE = 500
DRAIN_S = 2.0
STOP = StopRequested(StopCause.CANCEL)


class Cancels:
    """Every replica reads cancels. One that meets no request is kept for 24 hours, and applied when that comes."""

    name = "cancels"

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        settler: Settler,
        quarantine: Quarantine,
        wakeups: Wakeups,
        elsewhere: Elsewhere,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._settler = settler
        self._quarantine = quarantine
        self._wakeups = wakeups
        self._elsewhere = elsewhere
        self._arrivals: Batches[Delivery] = Batches(
            "cancels", self._take_in, AT_ONCE, self._poisoned, held_back(inbox), metrics=metrics
        )

    def receive(self, delivery: Delivery) -> None:
        """Takes over one delivery; it is acknowledged once it is safe."""
        self._arrivals.add(delivery)

    async def run(self) -> None:
        """Works until cancelled."""
        await run_together(self._arrivals.run(), self._quarantine.run(), self._apply_early_ones())

    async def drain(self) -> None:
        """Finishes what was delivered; the consumer has stopped before. What cannot be applied soon comes again, so it
        must not take the time that the lease needs to change hands."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._arrivals.drain()
                await self._quarantine.drain()
        await self._inbox.settle()

    async def _take_in(self, deliveries: list[Delivery]) -> None:
        cancels: list[Cancel] = []
        refusals: list[Refusal] = []
        for delivery in deliveries:
            read = read_cancel(delivery.message)
            if isinstance(read, Fault):
                refusals.append(self._quarantine.refuse(delivery, "", read))
            else:
                cancels.append(
                    Cancel(read.request_id, read.correlation_id, self._quarantine.reply_to(delivery.message))
                )
        await self._apply(cancels)
        held = {id(refusal.delivery) for refusal in refusals}
        self._inbox.acknowledge([delivery for delivery in deliveries if id(delivery) not in held])
        for refusal in refusals:
            self._quarantine.add(refusal)
        log.info("cancels.batch", size=len(deliveries), refused=len(refusals))

    async def _apply(self, cancels: Sequence[Cancel]) -> None:
        """Applies what meets its request, keeps the rest, and looks once more: the request may have come meanwhile."""
        if not cancels:
            return
        left = {cancel.request_id for cancel in cancels} - await self._stop(cancels)
        if left:
            await self._store.keep_early_cancels(sorted(left), utc_now())
            await self._apply_matched()

    async def _stop(self, cancels: Sequence[Cancel]) -> set[str]:
        """Stops what has not ended, and sends the end of what has once more; answers the ids that are known."""
        found = await self._store.load(sorted({cancel.request_id for cancel in cancels}))
        await self._settler.settle([Case(request_id, [STOP], request) for request_id, request in found.items()])
        ended = [cancel for cancel in cancels if cancel.request_id in found and found[cancel.request_id].state.ended]
        if ended:
            await self._store.repeat_ends(ended, utc_now())
            self._wakeups.events.set()
            await self._elsewhere.wake_relay()
        return set(found)

    async def _apply_early_ones(self) -> None:
        while True:
            await self._wakeups.cancels.wait()
            self._wakeups.cancels.clear()
            try:
                await self._apply_matched()
            except TransientError as error:
                log.warning("cancels.not_applied", reason=str(error))

    async def _apply_matched(self) -> None:
        """Early cancels whose request has come: applied, and then forgotten."""
        while request_ids := await self._store.matched_cancels(AT_ONCE):
            await self._settler.settle([Case(request_id, [STOP]) for request_id in request_ids])
            await self._store.forget_cancels(request_ids)

    def _poisoned(self, delivery: Delivery) -> None:
        """A cancel that breaks the code: out of the way, kept, and with its reason."""
        self._quarantine.add(Refusal(delivery, None, "internal"))
