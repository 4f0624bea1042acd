"""How everything stands at one moment: what has not ended, and what waits to be published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from service.domain.states import RequestState


class Waiting(Struct, frozen=True):
    """The requests of one state: how many, and when the oldest of them was received."""

    count: int
    oldest: datetime | None


class Standing(Struct, frozen=True):
    """`requests` of every state that is no end; generations `in_flight` at the hub; `unpublished` events (counted up to
    a bound), and since when the oldest of them waits."""

    requests: Mapping[RequestState, Waiting]
    in_flight: int
    unpublished: int
    unpublished_since: datetime | None
