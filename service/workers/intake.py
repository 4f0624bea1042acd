"""From the bus into the database: read, judge, store, commit, and only then acknowledge.

Each round of a batch holds every request id once, so messages with the same id meet the database in their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from service.clock import utc_now
from service.domain.errors import ErrorCode
from service.domain.messages import Identified, Message, Repeat, Unidentified
from service.domain.states import Fault
from service.supervisor import run_together
from service.telemetry import Metrics
from service.tracing import QUARANTINED, REJECTED, REPEATED, STORED, UNTRACED, Span, Tracing
from service.wire.events import encode_accepted, encode_rejected
from service.wire.json import loggable
from service.wire.requests import RequestRules, read_message
from service.workers.backpressure import held_back
from service.workers.batches import Batches
from service.workers.catalogue import Catalogue
from service.workers.judging import judged, look_up, unknown_model
from service.workers.ports import Bus, Delivery, Inbox, Store
from service.workers.quarantine import Quarantine, Refusal
from service.workers.settler import Elsewhere
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
DRAIN_S = 5.0
PACE_S = 0.05  # of a busy step; shorter, batches are smaller and Postgres works more (PROFILE.md)
MOST_PATHS = 10  # of one message, in the log
CONFLICT = Fault(
    ErrorCode.IDEMPOTENCY_CONFLICT, "This request_id is known with other content; the first request is untouched."
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery, read and judged as far as that can be done without the database."""

    delivery: Delivery
    read: Identified | Unidentified
    span: Span | None = None


Known = tuple[Delivery, Identified, Span | None]


class Intake:
    """Takes deliveries in batches."""

    name = "intake"

    def __init__(
        self,
        store: Store,
        bus: Bus,
        inbox: Inbox,
        catalogue: Catalogue,
        rules: RequestRules,
        wakeups: Wakeups,
        elsewhere: Elsewhere,
        metrics: Metrics,
        *,
        batch_limit: int = 500,
        lookup_timeout_s: float = 5.0,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._catalogue = catalogue
        self._rules = rules
        self._wakeups = wakeups
        self._elsewhere = elsewhere
        self._metrics = metrics
        self._lookup_timeout_s = lookup_timeout_s
        self._tracing = tracing
        self._lookups: set[asyncio.Task[None]] = set()
        self._arrivals: Batches[Arrival] = Batches(
            "intake", self._take_in, batch_limit, self._poisoned, held_back(inbox), metrics=metrics, pace_s=PACE_S
        )
        self._quarantine = Quarantine(store, bus, inbox, rules, wakeups, elsewhere, metrics)

    def receive(self, delivery: Delivery) -> None:
        """Takes over one delivery; it is acknowledged once it is safe."""
        read, span = read_message(delivery.message, self._rules, utc_now()), None
        if self._tracing.on and (span := self._tracing.processing(delivery.message, read)) is not None:
            read = _traced(read, span)
        model = unknown_model(self._catalogue, read)
        if model is None:
            self._arrivals.add(Arrival(delivery, judged(self._catalogue, read), span))
        else:
            self._look_up_first(Arrival(delivery, read, span), model)

    async def run(self) -> None:
        """Works until cancelled."""
        await run_together(self._arrivals.run(), self._quarantine.run())

    async def drain(self) -> None:
        """Finishes what was delivered; the consumer has stopped before. What cannot be stored soon comes again, so
        it must not take the time that those need who have paid for something."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                if self._lookups:
                    await asyncio.wait(self._lookups)
                await self._arrivals.drain()
                await self._quarantine.drain()
        await self._inbox.settle()

    def _look_up_first(self, arrival: Arrival, model: str) -> None:
        """Lets one message wait for its model while the others go on."""
        task = asyncio.create_task(self._look_up(arrival, model))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _look_up(self, arrival: Arrival, model: str) -> None:
        try:
            await look_up(self._catalogue, model, self._lookup_timeout_s)
        finally:
            self._arrivals.add(Arrival(arrival.delivery, judged(self._catalogue, arrival.read), arrival.span))

    # -- one batch ------------------------------------------------------------------------------------------------

    async def _take_in(self, arrivals: list[Arrival]) -> None:
        ready = [(arrival.delivery, arrival.read, arrival.span) for arrival in arrivals]
        refusals = [
            self._quarantine.refuse(d, "", read.fault, answered=_answered(d, read))
            for d, read, _ in ready
            if isinstance(read, Unidentified)
        ]
        new = 0
        for round_ in _rounds([(d, read, span) for d, read, span in ready if isinstance(read, Identified)]):
            refused, inserted = await self._store_round(round_)
            refusals += refused
            new += inserted
        await self._quarantine.answer([refusal for refusal in refusals if refusal.reason is None])
        held = {id(refusal.delivery) for refusal in refusals if refusal.reason is not None}
        self._inbox.acknowledge([delivery for delivery, _, _ in ready if id(delivery) not in held])
        if self._tracing.on:
            _end_refused(arrivals, held)
        for refusal in refusals:
            if refusal.reason is not None:
                self._quarantine.add(refusal)
        if new:
            self._wakeups.requests.set()
        if new or refusals:
            self._wakeups.events.set()
            await self._elsewhere.wake_relay()
        log.info("intake.batch", size=len(arrivals), stored=new, refused=len(refusals))

    async def _store_round(self, round_: Sequence[Known]) -> tuple[list[Refusal], int]:
        """Stores what is new, repeats what is known; answers the refusals and how many were new."""
        now = utc_now()
        new = [read.accepted for _, read, _ in round_ if read.accepted is not None]
        # Of the row: every later event tells the same.
        pairs = [(item, encode_accepted(replace(item.request, received_at=now), now)) for item in new]
        inserted = await self._store.insert(pairs, now) if pairs else {}
        if any(inserted.values()):
            self._wakeups.cancels.set()
        for item in new:
            if item.request.request_id in inserted:
                self._metrics.transitions.labels("accepted").inc()
                log.info("request.accepted", request_id=item.request.request_id, source=item.request.source)
        if self._tracing.on:
            _end(round_, inserted, STORED)
        rest = [known for known in round_ if known[1].request_id not in inserted]
        if not rest:
            return [], len(inserted)
        faulty = [read.request_id for _, read, _ in rest if read.accepted is None]
        known = await self._store.known(faulty) if faulty else set()
        known |= {read.request_id for _, read, _ in rest if read.accepted is not None}
        repeated = await self._repeat([(d, read) for d, read, _ in rest if read.request_id in known])
        if self._tracing.on:
            _end(rest, repeated, REPEATED)
        refusals = []
        for delivery, read, _ in rest:
            if read.request_id in repeated:
                log.info("request.repeated", request_id=read.request_id)
            elif read.request_id in known:
                told = _answered(delivery, read)
                refusals.append(self._quarantine.refuse(delivery, read.request_id, CONFLICT, answered=told))
            else:
                refusals.append(self._rejected(delivery, read))
        return refusals, len(inserted)

    async def _repeat(self, known: Sequence[tuple[Delivery, Identified]]) -> set[str]:
        if not known:
            return set()
        return await self._store.repeat(
            [self._repeat_of(delivery.message, read) for delivery, read in known], utc_now()
        )

    def _repeat_of(self, message: Message, read: Identified) -> Repeat:
        reply_to = self._quarantine.reply_to(message)
        return Repeat(read.request_id, read.content_hash, message.correlation_id, reply_to)

    # -- refusals -------------------------------------------------------------------------------------------------

    def _rejected(self, delivery: Delivery, read: Identified) -> Refusal:
        fault = read.fault or Fault(ErrorCode.INTERNAL, "The request could not be stored.")
        paths = [loggable(str(detail.get("path", ""))) for detail in fault.details[:MOST_PATHS]]
        log.info("request.rejected", request_id=read.request_id, code=fault.code.value, paths=paths)
        self._metrics.rejections.labels(fault.code.value).inc()
        message = _answered(delivery, read)
        reply_to = self._quarantine.reply_to(message)
        answer = encode_rejected(message, read.request_id, fault, utc_now(), reply_to=reply_to)
        return Refusal(delivery, answer, None)

    def _poisoned(self, arrival: Arrival) -> None:
        """A message that breaks the code or the database: out of the way, kept, and with its reason."""
        if arrival.span is not None:
            arrival.span.end(ErrorCode.INTERNAL.value, outcome=QUARANTINED)
        self._quarantine.add(Refusal(arrival.delivery, None, ErrorCode.INTERNAL.value))


def _rounds(items: Sequence[Known]) -> list[list[Known]]:
    """The items in order, cut so that no round holds an id twice."""
    rounds: list[list[Known]] = []
    seen: dict[str, int] = {}
    for item in items:
        request_id = item[1].request_id
        number = seen.get(request_id, -1) + 1
        seen[request_id] = number
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(item)
    return rounds


# -- traces -----------------------------------------------------------------------------------------------------------


def _traced(read: Identified | Unidentified, span: Span) -> Identified | Unidentified:
    """With the context of its processing: what is stored and published of it is beneath that."""
    if isinstance(read, Unidentified) or read.accepted is None:
        return replace(read, traceparent=span.traceparent, tracestate=span.tracestate)
    request = replace(read.accepted.request, traceparent=span.traceparent, tracestate=span.tracestate)
    accepted = replace(read.accepted, request=request)
    return replace(read, accepted=accepted, traceparent=span.traceparent, tracestate=span.tracestate)


def _answered(delivery: Delivery, read: Identified | Unidentified) -> Message:
    """The message with the trace that its answer carries."""
    return replace(delivery.message, traceparent=read.traceparent, tracestate=read.tracestate)


def _end(round_: Sequence[Known], request_ids: Container[str], outcome: str) -> None:
    """These are committed; a round holds an id once."""
    for _, read, span in round_:
        if span is not None and read.request_id in request_ids:
            model = None if read.accepted is None else read.accepted.request.model
            span.end(outcome=outcome, model=model, batch=len(round_))


def _end_refused(arrivals: Sequence[Arrival], quarantined: Container[int]) -> None:
    """What is neither stored nor a repeat, which have ended before."""
    for arrival in arrivals:
        if arrival.span is not None:
            put_away = id(arrival.delivery) in quarantined
            code = CONFLICT.code if arrival.read.fault is None else arrival.read.fault.code
            arrival.span.end(code.value, outcome=QUARANTINED if put_away else REJECTED, batch=len(arrivals))
