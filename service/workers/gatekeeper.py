"""Stands at the gate: tells it what the hub's answers say, and everybody else why it is shut.

One line in the log when it closes, one when it opens; never one a request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import structlog

from service.domain.gate import Closure, Gate, GatePolicy, Permit, Post, Reason, Signal
from service.domain.retry import Backoff
from service.telemetry import Metrics

log = structlog.get_logger(__name__)
EVERYTHING = "all"  # the scope of the gate itself; that of a namespace is `namespace:<name>`
RETRY_SPREAD_S = 0.5


class Gatekeeper:
    """The gate of one replica, with a clock, dice, a log and metrics."""

    def __init__(
        self,
        policy: GatePolicy,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.gate = Gate.opened(policy)
        self._metrics = metrics
        self._clock = clock
        self._dice = dice
        self._backoff = Backoff(first=1.0, limit=60.0)

    def permit(self, free: int) -> Permit | None:
        """What may be claimed next into `free` places."""
        return self.gate.permit(self._clock(), free)

    def begun(self, permit: Permit) -> int:
        """Its places are taken; the ticket of what comes of it."""
        gate, ticket = self.gate.begun(permit)
        self._become(gate)
        return ticket

    def returned(self, permit: Permit, ticket: int, places: int) -> None:
        """So many of its places were not needed."""
        self._become(self.gate.returned(permit, ticket, places, self._clock()))

    def lets_through(self, post: Post) -> bool:
        """Whether nothing has closed before it since it was permitted."""
        return self.gate.lets_through(post, self._clock())

    def ended(self, post: Post, signal: Signal | None) -> None:
        """Its outcome is known; no signal: it was not POSTed after all."""
        self._become(self.gate.ended(post, signal, self._clock(), self._dice()))

    def told_to_wait(self, seconds: float) -> None:
        """Another replica was told by the hub that all should wait."""
        self._become(self.gate.not_before(seconds, self._clock(), self._dice()))

    def look_in(self) -> float | None:
        """Seconds until time alone may bring a permit; None when only an answer can."""
        look_at = self.gate.look_at()
        return None if look_at is None else max(0.0, look_at - self._clock())

    def retry_in(self, namespace: str | None, attempts: int) -> float:
        """Seconds until a request that was turned away may be tried again.

        Behind a closed gate the gate paces, and the request's own back-off grows no longer than the time between two
        probes: so it is there when the gate opens. A little later than the next look, so that another may be the probe:
        one that is turned away for its own sake must not keep the gate shut for all.
        """
        own = self._backoff.jittered(attempts, self._dice())
        shut_until = self.gate.shut_until(namespace)
        if shut_until is None:
            return own
        patience = min(own, self.gate.policy.probe.limit)
        return max(shut_until - self._clock(), patience) + RETRY_SPREAD_S * self._dice()

    def paused(self) -> list[Mapping[str, object]]:
        """What is shut, why, and what to do about it: the readiness detail."""
        now = self._clock()
        return [
            {
                "scope": scope,
                "reason": closure.reason.value,
                "remedy": closure.reason.remedy,
                "for_s": _since(closure, now),
            }
            for scope, closure in _closures(self.gate).items()
        ]

    def _become(self, gate: Gate) -> None:
        before, after = _closures(self.gate), _closures(gate)
        self.gate = gate
        if before == after:
            return
        for scope, closure in before.items():
            if scope not in after or after[scope].reason is not closure.reason:
                self._metrics.submission_paused.labels(scope, closure.reason.value).set(0)
            if scope not in after:
                log.info("submission.resumed", scope=scope, after_s=_since(closure, self._clock()))
        for scope, closure in after.items():
            if scope not in before or before[scope].reason is not closure.reason:
                self._metrics.submission_paused.labels(scope, closure.reason.value).set(1)
                reason = closure.reason
                log.warning("submission.paused", scope=scope, reason=reason.value, remedy=reason.remedy)
        self._metrics.breaker_open.set(gate.closed is not None and gate.closed.reason is Reason.FAILING)


def _closures(gate: Gate) -> dict[str, Closure]:
    closures = {f"namespace:{name}": closure for name, closure in gate.held.items()}
    return closures if gate.closed is None else {EVERYTHING: gate.closed, **closures}


def _since(closure: Closure, now: float) -> float:
    return round(now - closure.since, 1)
