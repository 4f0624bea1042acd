"""Messages that are not accepted and cannot be answered by id: put away with their reason, answered where they ask for
it, and acknowledged, in this order. They wait apart, so that a blocked broker stops no intake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.clock import utc_now
from service.domain.messages import Message, OutboxEvent
from service.domain.states import Fault
from service.telemetry import Metrics
from service.wire.events import encode_rejected
from service.wire.requests import RequestRules, reply_to_refusal
from service.workers.batches import Batches
from service.workers.ports import Bus, Delivery, Inbox, Store
from service.workers.settler import Elsewhere
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
AT_ONCE = 50


@dataclass(slots=True, eq=False)
class Refusal:
    """A delivery that is not accepted, with its answer; `reason` is set when it goes to quarantine."""

    delivery: Delivery
    answer: OutboxEvent | None
    reason: str | None
    detail: str = ""
    quarantined: bool = False


class Quarantine:
    """Takes refusals over from the workers that consume a queue."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        inbox: Inbox,
        rules: RequestRules,
        wakeups: Wakeups,
        elsewhere: Elsewhere,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._bus = bus
        self._inbox = inbox
        self._rules = rules
        self._wakeups = wakeups
        self._elsewhere = elsewhere
        self._metrics = metrics
        self._waiting: Batches[Refusal] = Batches("quarantine", self._put_away, AT_ONCE, metrics=metrics)

    async def run(self) -> None:
        """Works until cancelled."""
        await self._waiting.run()

    async def drain(self) -> None:
        """Waits until everything handed over is put away."""
        await self._waiting.drain()

    def add(self, refusal: Refusal) -> None:
        """Hands over one refusal that has a reason; never waits."""
        self._waiting.add(refusal)

    def refuse(self, delivery: Delivery, request_id: str, fault: Fault, *, answered: Message | None = None) -> Refusal:
        """A refusal to be put away for `fault`, which its `reply_to` alone is told of. `answered`: the message with the
        trace that the answer is to carry, if that is another."""
        log.warning("message.quarantined", request_id=request_id or None, reason=fault.code.value, detail=fault.message)
        self._metrics.rejections.labels(fault.code.value).inc()
        message = answered or delivery.message
        reply_to = self.reply_to(message)
        answer = None
        if reply_to is not None:
            answer = encode_rejected(message, request_id, fault, utc_now(), reply_only=True, reply_to=reply_to)
        return Refusal(delivery, answer, fault.code.value, _told(fault))

    def reply_to(self, message: Message) -> str | None:
        """Where an answer may go."""
        return None if reply_to_refusal(message.reply_to, self._rules) else message.reply_to

    async def answer(self, refusals: Sequence[Refusal]) -> None:
        """Stores the answers, to be published like every event."""
        answers = [refusal.answer for refusal in refusals if refusal.answer is not None]
        if answers:
            await self._store.insert_answers(answers, utc_now())

    async def _put_away(self, refusals: list[Refusal]) -> None:
        """Publishes each once, however often the batch is tried; then answers and acknowledges them."""
        for refusal in refusals:
            if not refusal.quarantined:
                await self._bus.quarantine(refusal.delivery.message, refusal.reason or "", refusal.detail)
                refusal.quarantined = True
        await self.answer(refusals)
        self._inbox.acknowledge([refusal.delivery for refusal in refusals])
        self._wakeups.events.set()
        await self._elsewhere.wake_relay()


def _told(fault: Fault) -> str:
    """The fault in words, with the first of what is wrong."""
    details = "; ".join(f"{detail.get('path', '')}: {detail.get('message', '')}" for detail in fault.details[:5])
    return f"{fault.message} {details}".strip()
