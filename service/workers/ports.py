"""What the workers ask of the outside, as protocols; `app.py` hands in the adapters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from service.domain.claims import Claims
from service.domain.decisions import Decision
from service.domain.errors import DroverError
from service.domain.facts import OutputReported
from service.domain.feed import LAST, FeedEvent, Look, Place
from service.domain.gate import Submission
from service.domain.matching import Doubt, Sighting
from service.domain.messages import Cancel, Message, NewRequest, OutboxEvent, OutboxRow, Pending, Repeat
from service.domain.states import InFlight, OutputStatus, Request
from service.domain.upstream import Listing, ModelDescription, Sightings


class Delivery(Protocol):
    """A message that the broker waits to have acknowledged."""

    @property
    def message(self) -> Message:
        """What was delivered."""
        ...


class Inbox(Protocol):
    """Where deliveries come from."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tells the broker that these are dealt with; those of a lost connection are left, they come again."""
        ...

    def pause(self, reason: str) -> None:
        """Takes no more deliveries until `resume`; those at hand may still be acknowledged."""
        ...

    def resume(self) -> None:
        """Takes deliveries again."""
        ...

    async def settle(self) -> None:
        """Waits until every acknowledgement is on its way."""
        ...


class Bus(Protocol):
    """Where messages go. The others raise BrokerUnavailableError; a failed publish may still have arrived."""

    async def publish_events(self, events: Sequence[OutboxEvent]) -> Sequence[DroverError | None]:
        """To the events exchange, all at once; raises nothing, and tells of each what became of it: None when it was
        confirmed, a PermanentError when it is itself at fault, BrokerUnavailableError when nobody knows."""
        ...

    async def publish_reply(self, event: OutboxEvent) -> bool:
        """To the event's `reply_to`; False when it did not get there: replies are best effort. Raises only while an
        alarm of the broker blocks publishers."""
        ...

    async def quarantine(self, message: Message, reason: str, detail: str = "") -> None:
        """To the dead exchange, with its reason, confirmed; `detail` says it in words."""
        ...


class Store(Protocol):
    """The requests (see `postgres/store.py`). All raise DatabaseUnavailableError."""

    async def insert(self, new: Sequence[tuple[NewRequest, OutboxEvent]], now: datetime) -> Mapping[str, bool]: ...
    async def repeat(self, repeats: Sequence[Repeat], now: datetime) -> set[str]: ...
    async def known(self, request_ids: Sequence[str]) -> set[str]: ...
    async def insert_answers(self, events: Sequence[OutboxEvent], now: datetime) -> None: ...
    async def claim(
        self,
        limit: int,
        holder: str,
        lease_s: float,
        now: datetime,
        *,
        held: Sequence[str] = (),
        only: str | None = None,
        after: str = "",
    ) -> Claims: ...
    async def hold_off(self, seconds: float) -> None: ...
    async def promote(self, limit: int, now: datetime) -> int: ...
    async def lost_claim(self, holder: str, asked_at: datetime) -> list[tuple[str, int]]: ...
    async def expired_claims(self, limit: int, now: datetime | None = None) -> list[tuple[str, int]]: ...
    async def load(self, request_ids: Sequence[str]) -> dict[str, Request]: ...
    async def load_owners(self, generation_ids: Sequence[str]) -> dict[str, Request]: ...
    async def apply(self, decisions: Sequence[tuple[Decision, Sequence[OutboxEvent]]], now: datetime) -> set[str]: ...
    async def insert_orphans(self, reports: Sequence[OutputReported], now: datetime) -> None: ...
    async def heard_of(self, generation_ids: Sequence[str]) -> tuple[datetime | None, list[OutputReported]]: ...
    async def doubts(self, limit: int) -> list[Doubt]: ...
    async def owned(self, generation_ids: Sequence[str]) -> dict[str, str]: ...
    async def matched_orphans(self, limit: int) -> list[OutputReported]: ...
    async def in_flight(self) -> list[InFlight]: ...
    async def overdue(self, limit: int, now: datetime) -> list[str]: ...
    async def stopping(self, limit: int, now: datetime) -> list[Request]: ...
    async def keep_early_cancels(self, request_ids: Sequence[str], now: datetime) -> None: ...
    async def matched_cancels(self, limit: int) -> list[str]: ...
    async def forget_cancels(self, request_ids: Sequence[str]) -> None: ...
    async def repeat_ends(self, cancels: Sequence[Cancel], now: datetime) -> set[str]: ...
    async def pending(self, now: datetime) -> Pending: ...
    async def delete_old(self, statement: str, before: datetime, limit: int) -> int: ...


class EventStore(Protocol):
    """The outbox (see `postgres/outbox.py`). All raise DatabaseUnavailableError."""

    async def due(self, limit: int, now: datetime, without: Collection[int] = ()) -> list[OutboxRow]: ...
    async def mark_published(self, row_ids: Sequence[int], term: int) -> int: ...
    async def mark_failed(self, failed: Sequence[tuple[int, datetime]]) -> None: ...
    async def last(self) -> int: ...
    async def notify(self) -> None: ...


class Lease(Protocol):
    """Leadership (see `postgres/leader.py`). All raise DatabaseUnavailableError."""

    async def take(self, seconds: float, now: datetime | None = None) -> int | None: ...
    async def give_back(self) -> None: ...
    async def note_stream_opened(self, opened_at: datetime | None, term: int) -> None: ...


class Hub(Protocol):
    """The Oxen hub. All but `submit` raise HubUnavailableError or HubRefusedKeyError."""

    async def submit(self, request: Request, parameters: Mapping[str, object]) -> Submission:
        """One POST; never repeated, never raises: what is not known comes back as such."""
        ...

    async def active(self, namespace: str | None, generation_ids: Iterable[str]) -> Listing:
        """One list of what is queued or processing: which of these it does not show."""
        ...

    async def sightings(
        self,
        namespace: str | None,
        wanted: Callable[[Sighting], bool],
        model: str | None = None,
        status: OutputStatus | None = None,
    ) -> Sightings:
        """What is `wanted` of a list with parameters: of the active generations, or of one model's that ended as
        `status`."""
        ...

    async def generation(self, generation_id: str) -> OutputReported | None:
        """One generation; None when the hub does not know it."""
        ...

    async def cancel(self, generation_id: str) -> None:
        """Asks the hub to end one generation. That it did so, a GET must show."""
        ...

    async def model(self, model: str) -> ModelDescription | None:
        """One model; None when the hub has no such model."""
        ...


class Stream(Protocol):
    """The hub's event stream."""

    @property
    def received(self) -> int:
        """Bytes on the present connection, keep-alives included."""
        ...

    async def listen(self, opened: Callable[[], None], heard: Callable[[OutputReported], None]) -> None:
        """One connection until it ends, which always raises HubUnavailableError or HubRefusedKeyError."""
        ...


class FeedSource(Protocol):
    """The outbox as the feed reads it (see `postgres/feed.py`). All raise DatabaseUnavailableError."""

    async def end(self) -> int: ...
    async def look(self, behind: int, again: Sequence[int], limit: int, *, up_to: int = LAST) -> Look: ...
    async def missed(self, request_id: str, since: Place, now: Place, *, answers: bool) -> Sequence[FeedEvent]: ...
