"""Claims waiting requests and POSTs them: the one place where money is spent.

The claim, which is the intent, is committed before the POST. A claim outlives the POST's time limit by ten seconds and
is looked at once more at the last moment, so that nobody else can have taken the request over meanwhile.

How many may go, and whether any, is the gate's to say: while it is shut nothing is claimed but its probe, and what
waits spends no attempt.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import structlog
from msgspec.structs import replace

from service.clock import utc_now
from service.domain.claims import Claims
from service.domain.errors import HubUnavailableError, TransientError
from service.domain.facts import Fact, HubAccepted, HubRefused, InputFaulty, NotSent, OutcomeUnknown
from service.domain.gate import Limited, Permit, Post, Signal, Unclear
from service.domain.retry import Backoff
from service.domain.states import Claimed, Fault
from service.supervisor import run_together
from service.telemetry import Metrics
from service.tracing import UNTRACED, Tracing
from service.workers.batches import Batches
from service.workers.catalogue import Catalogue
from service.workers.gap import Gap
from service.workers.gatekeeper import Gatekeeper
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
CLAIM_MARGIN_S = 10.0
RETRY = Backoff(limit=5.0)  # of claims, as soon as the database is back
OPEN = 3  # requests without a written outcome, for each POST that may be under way
PACE_S = 0.1  # off the way of a result: nobody waits for an outcome but its `submitted`
GATHER_S = 0.01  # how long a busy submitter lets free slots gather, so that claims come in batches
OUTCOMES = {HubAccepted: "accepted", HubRefused: "refused", NotSent: "not_sent", OutcomeUnknown: "unknown"}
GATHER_RATE_S = 0.05  # the same for what the rate allows


class Submitter:
    """Up to `concurrency` POSTs at a time; outcomes are written in batches.

    The next POST need not wait for the outcome of the last to be written, or batches would be as small as what is
    POSTed meanwhile. No more than three times `concurrency` requests are ever without a written outcome, and that many
    doubts at the most are left behind by a replica that dies. A request that comes back while its own outcome is not
    written is not POSTed: the hub may have hidden what it took, and only this replica knows better.
    """

    name = "submitter"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        catalogue: Catalogue,
        settler: Settler,
        gap: Gap,
        gatekeeper: Gatekeeper,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        holder: str,
        concurrency: int,
        submit_timeout_s: float,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._store = store
        self._hub = hub
        self._catalogue = catalogue
        self._settler = settler
        self._gap = gap
        self._gatekeeper = gatekeeper
        self._wakeups = wakeups
        self._metrics = metrics
        self._holder = holder
        self._concurrency = concurrency
        self._submit_timeout_s = submit_timeout_s
        self._tracing = tracing
        self._posts: set[asyncio.Task[None]] = set()
        self._waiting, self._submitting = metrics.stage("waiting"), metrics.stage("submitting")
        self._open = 0  # claimed here, and not yet written
        self._lost: datetime | None = None  # the claim whose answer did not come, by when it was asked for
        self._unwritten: dict[str, int] = {}  # those of them that were POSTed, and at which attempt
        self._after = ""  # the source that was served last
        self._changed = asyncio.Event()  # a place is free, or an answer has come
        self._stopping = asyncio.Event()
        self._claims_ended = asyncio.Event()
        self._outcomes: Batches[tuple[Claimed, Fact]] = Batches(
            "outcomes", self._write_outcomes, (OPEN - 1) * concurrency, self._poisoned, metrics=metrics, pace_s=PACE_S
        )
        self._waits: Batches[float] = Batches("waits", self._tell_all_to_wait, metrics=metrics)

    async def run(self) -> None:
        """Works until cancelled; drain first, since a cancelled POST is a doubt."""
        await run_together(self._outcomes.run(), self._waits.run(), self._claim_and_post())

    async def drain(self) -> None:
        """Claims no more, and waits for every POST under way and for its outcome to be written."""
        self._stopping.set()
        self._wakeups.requests.set()
        self._changed.set()
        await self._claims_ended.wait()  # a claim under way still becomes POSTs
        if self._posts:
            await asyncio.wait(self._posts)
        await self._outcomes.drain()
        await self._waits.drain()

    async def _claim_and_post(self) -> None:
        failures = 0
        self._claims_ended.clear()
        while (permit := await self._permitted()) is not None:
            self._wakeups.requests.clear()
            try:
                await self._give_back_lost()
                claims = await self._claim(permit)
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("submitter.claim_failed", reason=str(error), failures=failures)
                await _waited(self._stopping, RETRY.jittered(failures))
                continue
            if claims.hold_s:
                self._gatekeeper.told_to_wait(claims.hold_s)
            elif claims.wait_s:
                await _waited(self._stopping, max(claims.wait_s, GATHER_RATE_S))
            elif claims.contended:
                await asyncio.sleep(GATHER_S)
            elif permit.only is None and len(claims) < permit.limit and not self._stopping.is_set():
                await self._wakeups.requests.wait()
        self._claims_ended.set()
        await asyncio.Event().wait()  # the outcomes go on until the drain is over

    async def _permitted(self) -> Permit | None:
        """Waits until there is a free place and the gate lets somebody through; None once the drain has begun."""
        if len(self._posts) > self._concurrency // 2:
            await asyncio.sleep(GATHER_S)
        while not self._stopping.is_set():
            free = min(self._concurrency - len(self._posts), OPEN * self._concurrency - self._open)
            permit = self._gatekeeper.permit(free)
            if permit is not None:
                return permit
            self._changed.clear()
            await _waited(self._changed, self._gatekeeper.look_in())
        return None

    async def _claim(self, permit: Permit) -> Claims:
        """Claims what is permitted, and begins to POST it."""
        ticket, claims = self._gatekeeper.begun(permit), Claims()
        lease_s, now = self._submit_timeout_s + CLAIM_MARGIN_S, utc_now()
        try:
            claims = await self._store.claim(
                permit.limit, self._holder, lease_s, now, held=permit.held, only=permit.only, after=self._after
            )
        except (TransientError, asyncio.CancelledError):
            self._lost = now  # no other one is: it is looked for before the next claim
            raise
        finally:
            self._gatekeeper.returned(permit, ticket, permit.limit - len(claims))
        self._open += len(claims)
        for item in claims:
            self._after = item.request.source
            if item.request.attempts == 1:
                self._waiting((item.began_at - item.request.received_at).total_seconds())
            post = Post(ticket, item.request.target_namespace)
            task = asyncio.create_task(self._post(item, post))
            self._posts.add(task)
            task.add_done_callback(partial(self._posted, item))
        return claims

    async def _give_back_lost(self) -> None:
        """Puts back what was claimed without our hearing of it: nobody POSTs it, and its claim would become a doubt."""
        if (lost := self._lost) is None:
            return
        self._lost = None  # once: what breaks this must not keep anybody from claiming
        try:
            claimed = await self._store.lost_claim(self._holder, lost)
            reason, now = "the answer to its claim was lost", utc_now()
            await self._settler.settle([Case(key, [NotSent(reason, now, attempt)]) for key, attempt in claimed])
        except TransientError:
            self._lost = lost
            raise

    def _posted(self, claimed: Claimed, task: asyncio.Task[None]) -> None:
        self._posts.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The outcome was not handed over: the claim will run out and the request be looked for upstream.
            log.error("submitter.post_broken", exc_info=error)
            self._written(claimed)

    def _written(self, claimed: Claimed) -> None:
        self._open -= 1
        if self._unwritten.get(claimed.request.request_id) == claimed.request.attempts:
            del self._unwritten[claimed.request.request_id]
        self._changed.set()

    async def _post(self, claimed: Claimed, post: Post) -> None:
        fact: Fact
        signal: Signal | None = None
        try:
            fact, signal = await self._outcome_of(claimed, post)
        finally:
            self._gatekeeper.ended(post, signal)
        if isinstance(fact, NotSent):
            retry_in = self._gatekeeper.retry_in(post.namespace, claimed.request.attempts)
            fact = replace(fact, retry_at=utc_now() + timedelta(seconds=retry_in))
        if isinstance(signal, Limited | Unclear) and signal.wait_s is not None:
            self._waits.add(time.monotonic() + signal.wait_s)
        self._outcomes.add((claimed, fact))

    async def _outcome_of(self, claimed: Claimed, post: Post) -> tuple[Fact, Signal | None]:
        """What became of the request, and what that says of the hub; None: it was not POSTed."""
        request = claimed.request
        if not claimed.input_checked and (fact := await self._check_input(claimed)) is not None:
            return fact, None
        if time.monotonic() > claimed.expires - self._submit_timeout_s:
            return NotSent(
                "the claim was about to run out before the POST was begun", utc_now(), request.attempts
            ), None
        if not self._gatekeeper.lets_through(post):
            return NotSent("submission was paused before the POST was begun", utc_now(), request.attempts), None
        if request.request_id in self._unwritten:
            return NotSent("the answer to its last POST is not yet written", utc_now(), request.attempts), None
        self._unwritten[request.request_id] = request.attempts
        began = time.monotonic()
        submission = await self._hub.submit(request, claimed.input)
        took = time.monotonic() - began
        self._metrics.submits.labels(OUTCOMES[type(submission.outcome)]).observe(took)
        if self._tracing.on:
            self._tracing.posted(request, took, submission.outcome)
        return replace(submission.outcome, attempt=request.attempts), submission.signal

    async def _check_input(self, claimed: Claimed) -> Fact | None:
        """What intake could not check, since the hub was away."""
        request = claimed.request
        verdict = self._catalogue.known(request.model)
        try:
            verdict = verdict or await self._catalogue.look_up(request.model)
        except HubUnavailableError as error:
            return NotSent(str(error), utc_now(), request.attempts)
        fault = verdict if isinstance(verdict, Fault) else verdict.fault(claimed.input)
        return None if fault is None else InputFaulty(fault)

    async def _write_outcomes(self, batch: list[tuple[Claimed, Fact]]) -> None:
        cases = [Case(claimed.request.request_id, [fact], claimed.request) for claimed, fact in batch]
        await self._settler.settle(cases)
        if len(batch) > 1:
            log.info("outcomes.batch", size=len(batch))
        now = utc_now()
        for claimed, fact in batch:
            self._written(claimed)
            if isinstance(fact, HubAccepted):
                self._submitting((now - claimed.began_at).total_seconds())
                for generation_id in fact.generation_ids:
                    self._gap.stored(generation_id, claimed.began_at)
                each = self._catalogue.price(claimed.request.model, claimed.input)
                self._metrics.spend(claimed.request.model, len(fact.generation_ids), each)
            elif isinstance(fact, OutcomeUnknown):
                self._metrics.doubts_opened.labels("post").inc()

    def _poisoned(self, item: tuple[Claimed, Fact]) -> None:
        """It breaks the writing: the claim will run out and the request be looked for upstream."""
        self._written(item[0])

    async def _tell_all_to_wait(self, batch: list[float]) -> None:
        """A Retry-After counts for every replica."""
        if (seconds := max(batch) - time.monotonic()) > 0:
            await self._store.hold_off(seconds)


async def _waited(event: asyncio.Event, seconds: float | None) -> None:
    """Waits for the event, for so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
