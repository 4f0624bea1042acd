"""Exchanges, queues and bindings as data, declared idempotently. Arguments are part of the contract."""

from __future__ import annotations

from dataclasses import dataclass, field

import aiormq
from aiormq.abc import AbstractChannel

from service.domain.errors import ConfigurationError
from service.domain.states import EventName
from service.rabbit.connection import Link, translated

COMMANDS, EVENTS, UNROUTED, DEAD = "generation.commands", "generation.events", "generation.unrouted", "generation.dead"
REQUESTS, CANCELS = "generation.requests", "generation.cancels"
REQUEST_KEY, CANCEL_KEY = "generation.request", "generation.cancel"
DAY_MS = 24 * 3600 * 1000
NO_LIMIT = 1_000_000  # RabbitMQ 4 drops after 20 deliveries where no limit is set

Arguments = dict[str, str | int]
WORK: Arguments = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue with its bindings: (exchange, routing key)."""

    name: str
    arguments: Arguments
    bindings: tuple[tuple[str, str], ...]


EXCHANGES = (
    Exchange(DEAD, "fanout"),
    Exchange(UNROUTED, "topic"),
    Exchange(COMMANDS, "topic"),
    Exchange(EVENTS, "topic", {"alternate-exchange": UNROUTED}),
)
QUEUES = (
    Queue(DEAD, {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}, ((DEAD, ""),)),
    Queue(
        UNROUTED,
        {
            "x-queue-type": "quorum",
            "x-message-ttl": 7 * DAY_MS,
            "x-max-length": 100_000,
            "x-overflow": "drop-head",
            "x-delivery-limit": NO_LIMIT,
        },
        tuple((UNROUTED, name.value) for name in EventName if name.terminal),
    ),
    Queue(REQUESTS, WORK, ((COMMANDS, REQUEST_KEY),)),
    Queue(CANCELS, WORK, ((COMMANDS, CANCEL_KEY),)),
)
OWN_QUEUES = frozenset(queue.name for queue in QUEUES)


class NotPermittedError(ConfigurationError):
    """This user may not declare something."""


async def provide(link: Link) -> None:
    """Declares everything; for a user who may not, it is enough that it is there (`drover topology`, by one who may).
    ConfigurationError."""
    try:
        with translated("declaring the topology"):
            await declare(await link.channel(confirms=False, needed=False))
    except NotPermittedError as refused:
        with translated("looking for the topology"):
            await _find(await link.channel(confirms=False, needed=False), refused)


async def _find(channel: AbstractChannel, refused: NotPermittedError, timeout_s: float = 30.0) -> None:
    """By passive declares, which need no permission. They do not compare arguments, and bindings cannot be seen."""
    thing = ""
    try:
        for exchange in EXCHANGES:
            thing = f"exchange {exchange.name}"
            await channel.exchange_declare(exchange.name, passive=True, timeout=timeout_s)
        for queue in QUEUES:
            thing = f"queue {queue.name}"
            await channel.queue_declare(queue.name, passive=True, timeout=timeout_s)
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        raise NotPermittedError(f"The {thing} is not there. {refused}") from error


async def declare(channel: AbstractChannel, timeout_s: float = 30.0) -> None:
    """Declares everything. ConfigurationError when something is there with other arguments, or may not be declared."""
    thing = ""
    try:
        for exchange in EXCHANGES:
            thing = f"exchange {exchange.name}"
            await channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                arguments=dict(exchange.arguments),
                timeout=timeout_s,
            )
        for queue in QUEUES:
            thing = f"queue {queue.name}"
            await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), timeout=timeout_s)
            await _bind(channel, queue, timeout_s)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise ConfigurationError(
            f"The {thing} is there with other arguments than drover's ({error}); delete it (when it is empty) and run "
            "`drover topology` again."
        ) from error
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise NotPermittedError(
            f"The broker does not let this user declare the {thing} ({error}); grant it configure, write and read on "
            "`generation.*`, or run `drover topology` as a user who may."
        ) from error


async def _bind(channel: AbstractChannel, queue: Queue, timeout_s: float) -> None:
    """ConfigurationError, never NotPermittedError: a queue that is there unbound gets nothing, and nobody says so."""
    for source, key in queue.bindings:
        try:
            await channel.queue_bind(queue.name, source, routing_key=key, timeout=timeout_s)
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise ConfigurationError(
                f"The broker does not let this user bind the queue {queue.name} to {source} ({error}); grant it write "
                "on the queue and read on the exchange, or no configure at all, and run `drover topology` as a user "
                "who may."
            ) from error
