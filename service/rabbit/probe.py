"""What a broker is like and what this user may do on it, found out without changing anything.

What is there is declared passively first, and only then with the arguments that are wanted: the broker answers either
that it is the same, or which argument differs. Whether the user may consume or publish is asked with what the broker
must refuse for its own sake, but only after it has looked at the permissions: a consumer whose priority is no number, a
message whose expiration is none. Whether it may bind: by the removal of a binding that is not there. Whether a queue
*is* bound cannot be seen over AMQP.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum
from functools import partial

import aiormq
from aiormq.channel import Channel
from msgspec import Struct
from pamqp.common import FieldValue

from service.cancellation import raise_if_cancelled
from service.domain.errors import ConfigurationError, DroverError
from service.rabbit.connection import CONNECT_TIMEOUT_S, Link
from service.rabbit.topology import CANCELS, COMMANDS, DEAD, EVENTS, EXCHANGES, QUEUES, REQUESTS, Exchange, Queue
from service.tls import TlsFault, tls_fault

STEP_TIMEOUT_S = 5.0
CONSUMED, PUBLISHED = (REQUESTS, CANCELS), (COMMANDS, EVENTS, DEAD, "")
Ask = Callable[[Channel], Awaitable[object]]


class Reach(StrEnum):
    """How far a connection came."""

    OPEN = "open"
    NO_ANSWER = "no answer"
    LOGIN_REFUSED = "login refused"
    VHOST_REFUSED = "vhost refused"
    WRONG_FILE = "wrong file"


class Found(StrEnum):
    """What came of asking for one thing."""

    SAME = "same"
    MISSING = "missing"
    OTHER_ARGUMENTS = "other arguments"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Declared(Struct, frozen=True):
    """One exchange or queue as found against as wanted; `told` is the broker's sentence where it is not the same."""

    kind: str
    name: str
    found: Found
    told: str = ""
    messages: int = 0
    consumers: int = 0


class Refusal(Struct, frozen=True):
    """Something that this user may not do, and the broker's own sentence."""

    doing: str
    told: str


class BrokerState(Struct, frozen=True):
    """Everything that was found out; what follows `reach` is empty unless it is OPEN."""

    reach: Reach
    told: str = ""
    version: str = ""
    declared: tuple[Declared, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    tls: TlsFault | None = None


async def probe_broker(url: str) -> BrokerState:
    """Connects and looks. Raises only BrokerUnavailableError, when the connection is lost on the way."""
    try:
        link = await Link.open(url, "doctor")
    except DroverError as error:
        late = isinstance(error.__cause__, TimeoutError)
        told = f"no answer within {CONNECT_TIMEOUT_S:g} s" if late else str(error)
        return BrokerState(_reach(error), told, tls=tls_fault(error))
    try:
        declared = [await _declared(link, thing) for thing in (*EXCHANGES, *QUEUES)]
        there = frozenset((item.kind, item.name) for item in declared if item.found is not Found.MISSING)
        declares = all(item.found is not Found.REFUSED for item in declared)  # else another user does, and binds, too
        refusals = [refusal async for refusal in _refusals(link, there, binds=declares)]
        return BrokerState(Reach.OPEN, "", link.server_version, tuple(declared), tuple(refusals))
    finally:
        await link.close()


def _reach(error: DroverError) -> Reach:
    if isinstance(error, ConfigurationError):
        return Reach.LOGIN_REFUSED if error.__cause__ is not None else Reach.WRONG_FILE
    refused = isinstance(error.__cause__, aiormq.exceptions.InvalidFrameError)
    return Reach.VHOST_REFUSED if refused else Reach.NO_ANSWER


async def _declared(link: Link, thing: Exchange | Queue) -> Declared:
    kind = "queue" if isinstance(thing, Queue) else "exchange"
    counts = (0, 0)

    async def look(channel: Channel) -> None:
        nonlocal counts
        if isinstance(thing, Exchange):
            await channel.exchange_declare(thing.name, passive=True, timeout=STEP_TIMEOUT_S)
            return
        answer = await channel.queue_declare(thing.name, passive=True, timeout=STEP_TIMEOUT_S)
        counts = (answer.message_count or 0, answer.consumer_count or 0)

    async def compare(channel: Channel) -> None:
        arguments: dict[str, FieldValue] = dict(thing.arguments)
        if isinstance(thing, Exchange):
            await channel.exchange_declare(
                thing.name, exchange_type=thing.kind, durable=True, arguments=arguments, timeout=STEP_TIMEOUT_S
            )
        else:
            await channel.queue_declare(thing.name, durable=True, arguments=arguments, timeout=STEP_TIMEOUT_S)

    for ask in (look, compare):  # never the second one for what is not there: it would make it
        found, told = await _ask(link, ask)
        if found is not Found.SAME:
            return Declared(kind, thing.name, found, told, *counts)
    return Declared(kind, thing.name, Found.SAME, "", *counts)


async def _refusals(link: Link, there: frozenset[tuple[str, str]], *, binds: bool) -> AsyncIterator[Refusal]:
    for doing, ask in (*_consuming(there), *_publishing(there), *(_binding(there) if binds else ())):
        found, told = await _ask(link, ask, confirms=True)
        if found is Found.REFUSED:
            yield Refusal(doing, told)


def _consuming(there: frozenset[tuple[str, str]]) -> Iterator[tuple[str, Ask]]:
    no_number: dict[str, FieldValue] = {"x-priority": "none"}
    for queue in CONSUMED:
        if ("queue", queue) in there:
            yield (
                f"consume the queue {queue}",
                partial(_consume, queue=queue, arguments=no_number),
            )


async def _consume(channel: Channel, *, queue: str, arguments: dict[str, FieldValue]) -> None:
    await channel.basic_consume(queue, _ignore, arguments=arguments, timeout=STEP_TIMEOUT_S)


def _publishing(there: frozenset[tuple[str, str]]) -> Iterator[tuple[str, Ask]]:
    for exchange in PUBLISHED:
        if not exchange:
            yield "publish to the default exchange, as replies are", partial(_publish, exchange=exchange)
        elif ("exchange", exchange) in there:
            yield f"publish to the exchange {exchange}", partial(_publish, exchange=exchange)


async def _publish(channel: Channel, *, exchange: str) -> None:
    no_number = aiormq.spec.Basic.Properties(expiration="never")
    await channel.basic_publish(
        b"", exchange=exchange, routing_key=_nowhere(), properties=no_number, timeout=STEP_TIMEOUT_S
    )


def _binding(there: frozenset[tuple[str, str]]) -> Iterator[tuple[str, Ask]]:
    for queue in QUEUES:
        for exchange in dict.fromkeys(source for source, _ in queue.bindings):
            if {("queue", queue.name), ("exchange", exchange)} <= there:
                yield (
                    f"bind the queue {queue.name} to the exchange {exchange}",
                    partial(_unbind, queue=queue.name, exchange=exchange),
                )


async def _unbind(channel: Channel, *, queue: str, exchange: str) -> None:
    await channel.queue_unbind(queue, exchange, routing_key=_nowhere(), timeout=STEP_TIMEOUT_S)


def _nowhere() -> str:
    return f"drover.doctor.{secrets.token_hex(8)}"


async def _ignore(_: object) -> None:
    """A consumer that is never accepted."""


async def _ask(link: Link, ask: Ask, *, confirms: bool = False) -> tuple[Found, str]:
    """One question on a channel of its own, which the broker ends when the answer is no."""
    channel = await link.channel(confirms=confirms)
    try:
        await ask(channel)
        await channel.close()
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        return Found.MISSING, str(error)
    except aiormq.exceptions.ChannelAccessRefused as error:
        return Found.REFUSED, str(error)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        return Found.OTHER_ARGUMENTS, str(error)
    except (aiormq.exceptions.AMQPError, OSError, TimeoutError, asyncio.CancelledError) as error:
        raise_if_cancelled(error)  # a broker that freezes cancels what nobody cancelled
        return Found.UNKNOWN, str(error) or type(error).__name__
    return Found.SAME, ""
