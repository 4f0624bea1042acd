"""The faults that a test may switch on while the sandbox runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

Probability = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
ErrorStatus = Annotated[int, Field(ge=400, le=599)]


@dataclass(config=ConfigDict(extra="forbid", validate_assignment=True, use_attribute_docstrings=True))
class Faults:
    """One switch per fault; the defaults are a healthy hub.

    A new fault is a field here and a look at it at the place where it bites. Over HTTP (`PUT /sandbox/faults`) a set
    replaces the former one as a whole, so `{}` heals the hub. What lasts is settled when a set is replaced, not when a
    field is assigned: calls that hang are cut, tears that wait are forgotten, the times of cuts are drawn anew.
    "POST" is the one to the queue; the blocking calls know no faults but those of the generations they start.
    """

    # -- a POST that accepts nothing

    posts_hung: Probability = 0.0
    """A POST is taken from the wire, not accepted, and never answered: its connection stays open until the client
    goes, the set is replaced or the sandbox stops."""

    post_status: ErrorStatus | None = None
    """Each POST is answered with this status."""

    posts_limited: Probability = 0.0
    """A POST is answered 429."""

    posts_failed: Probability = 0.0
    """A POST is answered 502 with a proxy's HTML."""

    posts_empty: Probability = 0.0
    """A POST is answered 200 with an empty `generations` list and an `error`."""

    posts_empty_type: Literal["unauthenticated", "invalid_params", "resource_not_found", "unknown_error"] = (
        "invalid_params"
    )
    """The type of the error of `posts_empty`."""

    namespaces: tuple[str, ...] | None = None
    """The namespaces that the key may bill: a `target_namespace` outside of them is refused with 403. None: any."""

    # -- a POST that is accepted

    answer_delay_s: Seconds = 0.0
    """A POST is accepted at once, its generations start, and its answer comes this much later."""

    answers_lost: Probability = 0.0
    """A POST is accepted, and its connection is cut instead of being answered."""

    answers_hung: Probability = 0.0
    """A POST is accepted and never answered, as with `posts_hung`."""

    posts_failed_late: Probability = 0.0
    """A POST is accepted, and answered 502 with a proxy's HTML."""

    # -- what becomes of a generation, decided when it is accepted

    forgotten: Probability = 0.0
    """The hub forgets a generation as soon as it has given its id: see `POST /sandbox/generations/forget`."""

    never_ending: Probability = 0.0
    """A generation stays `processing` until it is cancelled, also after the hub has been healed."""

    hidden_s: Seconds = 0.0
    """A generation is unknown to lists, gets and deletes for so long. Its event does not wait for that."""

    # -- lists, gets, deletes, models

    list_status: ErrorStatus | None = None
    """Each list is answered with this status."""

    list_limit: Annotated[int, Field(ge=0)] | None = None
    """A list shows at most so many generations, the oldest, while its `count` tells how many there are."""

    list_limit_hidden: bool = False
    """The `count` of a list that `list_limit` has cut short tells how many it shows."""

    get_status: ErrorStatus | None = None
    """Each GET of one generation is answered with this status."""

    delete_status: ErrorStatus | None = None
    """Each DELETE is answered with this status, and nothing is cancelled."""

    deletes_ignored: Probability = 0.0
    """A DELETE is answered with success, and the generation goes on."""

    models_status: ErrorStatus | None = None
    """Each GET of the models, or of one, is answered with this status."""

    # -- the hub's clock

    clock_offset_s: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    """The `Date` of each answer is so many seconds ahead (below 0: behind), the stream's excepted. The times of
    generations stay right."""

    # -- how errors look

    html_bodies: bool = False
    """The error statuses that faults cause carry a proxy's HTML instead of the hub's shape."""

    retry_after: Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")] | None = None
    """The header Retry-After of the 429 and 503 that faults cause, as text: seconds or a date. None: no header."""

    # -- the event stream

    stream_refused: bool = False
    """GET /api/events answers 503. Open streams stay."""

    stream_muted: bool = False
    """Open streams stay open and say nothing, not even keep-alives. Events of that time are lost."""

    stream_cut_every_s: Annotated[float, Field(gt=0)] | None = None
    """Each open stream is cut abruptly after about so many seconds (half to one and a half times as many)."""

    events_dropped: Probability = 0.0
    """A completion event reaches nobody."""

    events_doubled: Probability = 0.0
    """A completion event comes twice."""

    events_foreign: Probability = 0.0
    """A completion event comes after one for a generation that nobody submitted here, and one of another type."""

    events_early: Probability = 0.0
    """The generations of a POST end at once, and its answer comes only after their events."""

    events_early_by_s: Seconds = 0.7
    """How long after the events of `events_early` the answer comes."""


FAULTS: TypeAdapter[Faults] = TypeAdapter(Faults)
"""Reads and writes a set of faults as JSON."""
