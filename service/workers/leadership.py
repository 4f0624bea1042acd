"""One replica leads: it holds the stream, sweeps and relays. The lease is renewed every 2 s and good for 6 s.

A leader stops acting at the end of its lease by its own monotonic clock, counted from before it asked for it; so a
frozen process that wakes up stops within the second in which it looks at the clock. The term rises at every change of
hands and is written into the guards, so what a former leader still had in its hands marks nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from service.domain.errors import TransientError
from service.supervisor import Component, Supervisor, run_together
from service.telemetry import Metrics
from service.workers.ports import Lease
from service.workers.settler import Elsewhere
from service.workers.wakeups import Wakeups

log = structlog.get_logger(__name__)
LEASE_S = 6.0
RENEW_S = 2.0
WATCH_S = 0.5
GIVE_BACK_S = 1.0  # of the end of a process whose drain was cut off, which is not long


class Leadership:
    """Takes the lease when it is free, and runs the leader's components while it holds."""

    name = "leadership"

    def __init__(
        self,
        lease: Lease,
        elsewhere: Elsewhere,
        wakeups: Wakeups,
        metrics: Metrics,
        components: Callable[[int], Sequence[Component]],
        *,
        grace_s: float = 10.0,
    ) -> None:
        self._lease = lease
        self._elsewhere = elsewhere
        self._wakeups = wakeups
        self._metrics = metrics
        self._components = components
        self._grace_s = grace_s
        self._supervisor: Supervisor | None = None
        self._term: int | None = None
        self._good_until = 0.0
        self._retiring = False  # the drain has begun: hold the lease until it is over, and take no new one
        self._retired = False  # the lease is given back
        self._ending: Supervisor | None = None
        self._asking = asyncio.Lock()  # held while the lease is asked for

    @property
    def leading(self) -> bool:
        """Whether this replica holds the lease, by its own clock."""
        return self._supervisor is not None and time.monotonic() < self._good_until

    def failures(self) -> dict[str, int]:
        """How often each of the leader's components failed in a row."""
        return {} if self._supervisor is None else self._supervisor.failures()

    async def run(self) -> None:
        """Competes for the lease until cancelled."""
        try:
            await run_together(self._renew(), self._watch())
        finally:
            led = self._supervisor is not None
            await self._step_down("stopped")
            if led:
                await self._give_back_at_the_end()

    async def drain(self) -> None:
        """Publishes what is due, gives the lease back, and competes no more."""
        self._retiring = True
        if supervisor := self._supervisor:
            await supervisor.stop(self._grace_s)  # cut off, the end of `run` does what is left
        self._retired = True  # a lease that becomes free now is for others
        if supervisor:  # though it may have stepped down meanwhile: a late answer may have renewed the lease
            self._supervisor = None
            self._note(leading=False)
            await self._give_back()
        with suppress(TimeoutError):  # one that is being asked for would be nobody's: it is given back, too
            async with asyncio.timeout(RENEW_S), self._asking:
                pass

    async def _give_back(self) -> None:
        try:
            await self._lease.give_back()
        except TransientError as error:
            log.warning("lease.not_given_back", reason=str(error))
        else:
            log.info("leadership.given_back", term=self._term)

    async def _give_back_at_the_end(self) -> None:
        """By a task of its own: the one that ends is being cancelled, and would not hear the answer."""
        giving = asyncio.create_task(self._give_back())
        _, late = await asyncio.wait([giving], timeout=GIVE_BACK_S)
        if late:
            giving.cancel()
            log.warning("lease.not_given_back", reason=f"the database did not answer within {GIVE_BACK_S:g} s")

    async def _renew(self) -> None:
        while True:
            self._wakeups.lease.clear()
            if self._supervisor is not None or not self._retiring:
                async with self._asking:
                    await self._take()
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._wakeups.lease.wait()

    async def _take(self) -> None:
        asked = time.monotonic()
        try:
            term = await self._lease.take(LEASE_S)
        except TransientError as error:
            log.warning("lease.not_renewed", reason=str(error))
            return
        if self._retired:
            if term is not None:  # it was given back while we asked
                await self._give_back()
            return
        if term is None or (self._supervisor is not None and term != self._term):
            await self._step_down("another replica leads")
        if term is not None:
            self._good_until = asked + LEASE_S
            late = time.monotonic() >= self._good_until  # a slow answer: nobody may act on it
            if self._supervisor is None and self._ending is None and not (late or self._retiring):
                self._step_up(term)

    def _step_up(self, term: int) -> None:
        log.info("leadership.taken", term=term)
        self._metrics.leadership_taken.inc()
        self._term = term
        self._note(leading=True)
        self._supervisor = Supervisor(self._components(term))
        self._supervisor.start()

    async def _watch(self) -> None:
        """Ends the leader's work when the lease is over, whatever the renewal is waiting for."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._supervisor is not None and time.monotonic() >= self._good_until:
                await self._step_down("the lease ran out")

    async def _step_down(self, reason: str) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            log.warning("leadership.lost", term=self._term, reason=reason)
            self._note(leading=False)
            self._ending = supervisor
            try:
                await supervisor.end()
            finally:
                self._ending = None

    def _note(self, *, leading: bool) -> None:
        self._elsewhere.leading = leading
        self._metrics.leading.set(1 if leading else 0)
