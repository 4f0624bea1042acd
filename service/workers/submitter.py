"""Claims waiting requests and POSTs them: the one place where money is spent.

The claim, which is the intent, is committed before the POST. A claim outlives the POST's time limit by ten seconds and
is looked at once more at the last moment, so that nobody else can have taken the request over meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from service.clock import utc_now
from service.domain.errors import HubUnavailableError, TransientError
from service.domain.facts import Fact, HubAccepted, InputFaulty, NotSent
from service.domain.retry import Backoff
from service.domain.states import Claimed, Fault
from service.supervisor import run_together
from service.telemetry import Metrics
from service.workers.batches import Batches
from service.workers.catalogue import Catalogue
from service.workers.gap import Gap
from service.workers.ports import Hub, Store
from service.workers.settler import Case, Settler
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
CLAIM_MARGIN_S = 10.0
GATHER_S = 0.004  # how long a busy submitter lets free slots gather, so that claims come in batches


class Submitter:
    """Up to `concurrency` POSTs at a time; outcomes are written in batches.

    A slot is free again when the outcome is written, not when it is known: so no more than `concurrency` requests are
    ever without a written outcome, and that many doubts at the most are left behind by a replica that dies.
    """

    name = "submitter"

    def __init__(
        self,
        store: Store,
        hub: Hub,
        catalogue: Catalogue,
        settler: Settler,
        gap: Gap,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        holder: str,
        concurrency: int,
        submit_timeout_s: float,
    ) -> None:
        self._store = store
        self._hub = hub
        self._catalogue = catalogue
        self._settler = settler
        self._gap = gap
        self._wakeups = wakeups
        self._metrics = metrics
        self._holder = holder
        self._concurrency = concurrency
        self._submit_timeout_s = submit_timeout_s
        self._backoff = Backoff(first=1.0, limit=60.0)
        self._posts: set[asyncio.Task[None]] = set()
        self._held = 0  # claimed here, and not yet written
        self._slot_freed = asyncio.Event()
        self._stopping = False
        self._claims_ended = asyncio.Event()
        self._outcomes: Batches[tuple[Claimed, Fact]] = Batches("outcomes", self._write_outcomes, poisoned=self._freed)
        # Apart from the outcomes, which must not wait for a hub that answers slowly.
        self._stored: Batches[tuple[str, datetime]] = Batches("gaps", self._close_gaps)

    async def run(self) -> None:
        """Works until cancelled; drain first, since a cancelled POST is a doubt."""
        await run_together(self._outcomes.run(), self._stored.run(), self._claim_and_post())

    async def drain(self) -> None:
        """Claims no more, and waits for every POST under way and for its outcome to be written."""
        self._stopping = True
        self._wakeups.requests.set()
        self._slot_freed.set()
        await self._claims_ended.wait()  # a claim under way still becomes POSTs
        if self._posts:
            await asyncio.wait(self._posts)
        await self._outcomes.drain()

    async def _claim_and_post(self) -> None:
        failures = 0
        self._claims_ended.clear()
        while not self._stopping:
            self._wakeups.requests.clear()
            try:
                claimed, wanted = await self._claim()
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("submitter.claim_failed", reason=str(error), failures=failures)
                await asyncio.sleep(Backoff().jittered(failures))
                continue
            self._held += len(claimed)
            for item in claimed:
                task = asyncio.create_task(self._post(item))
                self._posts.add(task)
                task.add_done_callback(self._posted)
            if len(claimed) < wanted and not self._stopping:
                await self._wakeups.requests.wait()
            await self._until_slots_are_free()
        self._claims_ended.set()
        await asyncio.Event().wait()  # the outcomes go on until the drain is over

    async def _claim(self) -> tuple[list[Claimed], int]:
        """Claims as many as there are free slots."""
        free = self._concurrency - self._held
        if free <= 0 or self._stopping:
            return [], 0
        lease_s = self._submit_timeout_s + CLAIM_MARGIN_S
        return await self._store.claim(free, self._holder, lease_s, utc_now()), free

    def _posted(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        if not post.cancelled() and (error := post.exception()) is not None:
            # The outcome was not handed over: the claim will run out and the request be looked for upstream.
            log.error("submitter.post_broken", exc_info=error)
            self._freed()

    def _freed(self, *_: object) -> None:
        self._held -= 1
        self._slot_freed.set()

    async def _until_slots_are_free(self) -> None:
        if self._held > self._concurrency // 2:
            await asyncio.sleep(GATHER_S)
        while self._held >= self._concurrency and not self._stopping:
            self._slot_freed.clear()
            await self._slot_freed.wait()

    async def _post(self, claimed: Claimed) -> None:
        self._outcomes.add((claimed, await self._outcome_of(claimed)))

    async def _outcome_of(self, claimed: Claimed) -> Fact:
        request = claimed.request
        retry_at = utc_now() + timedelta(seconds=self._backoff.jittered(request.attempts))
        if not claimed.input_checked and (fact := await self._check_input(claimed)) is not None:
            return fact
        if time.monotonic() > claimed.expires - self._submit_timeout_s:
            return NotSent("the claim was about to run out before the POST was begun", retry_at, request.attempts)
        began = time.monotonic()
        outcome = replace(await self._hub.submit(request, claimed.input), attempt=request.attempts)
        self._metrics.submits.labels(type(outcome).__name__).observe(time.monotonic() - began)
        if isinstance(outcome, NotSent):
            return replace(outcome, retry_at=max(outcome.retry_at, retry_at))
        return outcome

    async def _check_input(self, claimed: Claimed) -> Fact | None:
        """What intake could not check, since the hub was away."""
        request = claimed.request
        verdict = self._catalogue.known(request.model)
        try:
            verdict = verdict or await self._catalogue.look_up(request.model)
        except HubUnavailableError as error:
            retry_at = utc_now() + timedelta(seconds=self._backoff.jittered(request.attempts))
            return NotSent(str(error), retry_at, request.attempts)
        fault = verdict if isinstance(verdict, Fault) else verdict.fault(claimed.input)
        return None if fault is None else InputFaulty(fault)

    async def _write_outcomes(self, batch: list[tuple[Claimed, Fact]]) -> None:
        cases = [Case(claimed.request.request_id, [fact], claimed.request) for claimed, fact in batch]
        began = time.monotonic()
        await self._settler.settle(cases)
        self._metrics.batch("outcomes", len(batch), time.monotonic() - began)
        if len(batch) > 1:
            log.info("outcomes.batch", size=len(batch))
        for claimed, fact in batch:
            self._freed()
            if isinstance(fact, HubAccepted):
                for generation_id in fact.generation_ids:
                    self._stored.add((generation_id, claimed.began_at))

    async def _close_gaps(self, batch: list[tuple[str, datetime]]) -> None:
        await self._gap.close_for(dict(batch))
