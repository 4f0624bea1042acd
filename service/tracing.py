"""What the workers tell of a request's way, for whoever draws it as a trace. Off, which is the default, costs one look
at `on`; `service/otlp` has what draws.

A request's trace goes on across replicas and restarts, since its context is stored with it: whatever is told later is
drawn beneath the processing of the message that was accepted. A context whose sampled flag is off is passed on as it
is. Neither that is drawn, nor what is left of a request that came without a context while tracing was off.
"""

from __future__ import annotations

from typing import Protocol

from service.domain.facts import Fact, SubmitOutcome
from service.domain.matching import Doubt
from service.domain.messages import Identified, Message, OutboxEvent, Unidentified
from service.domain.states import Request

STORED, REPEATED, REJECTED, QUARANTINED = "stored", "repeated", "rejected", "quarantined"


class Span(Protocol):
    """Something under way whose context others are to carry. Ended once: a second end says nothing."""

    @property
    def traceparent(self) -> str:
        """Its own context, for those beneath it."""
        ...

    @property
    def tracestate(self) -> str | None:
        """Goes along with `traceparent`."""
        ...

    def end(
        self,
        error: str | None = None,
        *,
        outcome: str | None = None,
        model: str | None = None,
        batch: int | None = None,
    ) -> None:
        """It is over. `error`: a low-cardinality name of what went wrong; `model`: of what was taken, since what is not
        may say anything there; `batch`: how many were done with it."""
        ...


class Tracing:
    """Tracing that is off. Callers look at `on` first, and tell nothing while it is False."""

    on = False

    def open(self) -> None:
        """Makes ready to send. ConfigurationError."""

    async def close(self) -> None:
        """Sends what is left, for a bounded time; never fails."""

    def processing(self, message: Message, read: Identified | Unidentified) -> Span | None:
        """A message of `generation.requests` was delivered. None: the context that it came with goes on."""

    def posted(self, request: Request, seconds: float, outcome: SubmitOutcome) -> None:
        """One POST, which ended just now, took so long and came to this."""

    def doubt_resolved(self, doubt: Doubt, fact: Fact) -> None:
        """A look has just found out what became of a POST whose answer was lost."""

    def ended(self, request: Request) -> None:
        """The terminal state of a request is written."""

    def publishing(self, event: OutboxEvent, *, reply: bool = False) -> Span | None:
        """An event is on its way to the events exchange, or to its `reply_to`. None: it goes as it is stored."""


UNTRACED = Tracing()
