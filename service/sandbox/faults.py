"""The faults that a test may switch on while the sandbox runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass


@dataclass(config=ConfigDict(extra="forbid", validate_assignment=True))
class Faults:
    """One switch per fault; the defaults are a healthy hub.

    A new fault is a field here and a look at it at the place where it bites. Over HTTP (`PUT /sandbox/faults`) a set
    replaces the former one as a whole, so `{}` heals the hub.
    """

    stream_refused: bool = False
    """GET /api/events answers 503. Open streams stay."""

    answer_delay_s: Annotated[float, Field(ge=0)] = 0.0
    """A POST to the queue is accepted at once, its generations start, and its answer comes this much later."""

    answers_lost: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability that a POST to the queue is accepted and its connection is cut instead of being answered."""

    events_dropped: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability that a completion event reaches nobody."""

    post_status: Annotated[int, Field(ge=400, le=599)] | None = None
    """Each POST to the queue is answered with this status and an error in the hub's shape, and nothing is accepted."""

    namespaces: tuple[str, ...] | None = None
    """The namespaces that the key may bill: a `target_namespace` outside of them is refused with 403. None: any."""


FAULTS: TypeAdapter[Faults] = TypeAdapter(Faults)
"""Reads and writes a set of faults as JSON."""
