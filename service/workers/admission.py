"""Requests that come by the API instead of the bus: judged as intake judges them, then put on the bus like everybody's.

So what a caller is told at once and what intake makes of the message agree, and nothing is stored here that the bus
did not bring.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from service.clock import utc_now
from service.domain.messages import Message, Unidentified
from service.domain.states import Fault
from service.wire.envelope import invalid
from service.wire.json import dumps
from service.wire.requests import RequestRules, read_message
from service.workers.catalogue import Catalogue
from service.workers.intake import CONFLICT
from service.workers.judging import judged, look_up, unknown_model

SOURCE = "http"  # the app_id of what comes this way
LOOKUP_TIMEOUT_S = 5.0
Publish = Callable[[str, Message], Awaitable[None]]


class Admitted(Struct, frozen=True):
    """The message is on the bus, confirmed."""

    request_id: str


class Contents(Protocol):
    """What idempotency compares (see `postgres/reader.py`)."""

    async def content_hash(self, request_id: str) -> bytes | None: ...


class Admission:
    """`publish` puts a message where a routing key leads, and returns when the broker has confirmed it."""

    def __init__(
        self,
        contents: Contents,
        catalogue: Catalogue,
        rules: RequestRules,
        publish: Publish,
        *,
        request_key: str,
        cancel_key: str,
    ) -> None:
        self._contents = contents
        self._catalogue = catalogue
        self._rules = rules
        self._publish = publish
        self._request_key = request_key
        self._cancel_key = cancel_key

    async def admit(self, message: Message) -> Admitted | Fault:
        """Judges a message and publishes it; what is wrong with it otherwise. DatabaseUnavailableError,
        BrokerUnavailableError: then it may have arrived all the same, and may be sent again."""
        read = read_message(message, self._rules, utc_now())
        if isinstance(read, Unidentified):
            return read.fault
        if message.message_id not in (None, read.request_id):
            return invalid("The body's request_id and the Idempotency-Key differ; send one of them.")
        stored = await self._contents.content_hash(read.request_id)
        if stored is not None and stored != read.content_hash:
            return CONFLICT
        if stored is None:
            if (model := unknown_model(self._catalogue, read)) is not None:
                await look_up(self._catalogue, model, LOOKUP_TIMEOUT_S)
            if (fault := judged(self._catalogue, read).fault) is not None:
                return fault
        await self._publish(self._request_key, message)
        return Admitted(read.request_id)

    async def cancel(self, request_id: str) -> None:
        """Asks for the end of a request. BrokerUnavailableError."""
        body = dumps({"request_id": request_id})
        await self._publish(self._cancel_key, Message(body, "application/json", source=SOURCE))
