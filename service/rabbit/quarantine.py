"""The queue of dead letters as an operator works on it: reads without taking, gives back to the service, throws away.

Letters are read in small pages, each by a consumer of its own that is ended when its page is full: what was read stays
with this channel until all is put back in its order (or until the connection ends, when the broker puts it back). Not
by `basic.get`: with many unacknowledged, RabbitMQ 3.10 needs minutes for thousands and gives them back shuffled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, UnroutableError
from service.rabbit.connection import Link, translated
from service.rabbit.dead_letters import DeadLetter, read_dead_letter, replay_of
from service.rabbit.properties import encoded_of, tolerate_odd_properties
from service.rabbit.topology import COMMANDS, DEAD
from service.rabbit.verbatim import Returns

tolerate_odd_properties()
# RabbitMQ 3.10 puts messages back in their order when one command names no more than 32 of them.
PAGE = 32
PAGES_PUT_BACK = 16  # commands that its client sends before it begins to merge them, with room to spare
TIMEOUT_S = 10.0
PAGE_TIMEOUT_S = 5.0
NO_QUEUE = f"There is no queue {DEAD} on this broker; run `drover topology`."
ALARM = "An alarm (memory or disk) keeps the broker from taking messages; end it, and replay what is still here."
NO_WAY_BACK = f"{COMMANDS} leads to no queue for these letters, which are still here; run `drover topology`."


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters: those with these ids, or with this reason, or all; at most `limit` of them."""

    ids: frozenset[str] = frozenset()
    reason: str | None = None
    limit: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether this letter is meant."""
        if self.ids:
            return letter.letter_id in self.ids
        return self.reason is None or letter.reason == self.reason

    def complete(self, found: Sequence[str]) -> bool:
        """Whether no other letter can be meant, once those were found."""
        if self.limit is not None and len(found) >= self.limit:
            return True
        return bool(self.ids) and self.ids <= set(found)


@dataclass(frozen=True, slots=True)
class Held:
    """A letter that was read: `position` counts from 1 at the head of the queue."""

    letter: DeadLetter
    position: int
    tag: int
    returned: bool  # it had been read before, and put back


class Quarantine:
    """One connection to read, and for replays another to publish, which an alarm may block: an async context manager.

    All methods raise BrokerUnavailableError, and UnroutableError when a queue is missing.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._link: Link | None = None
        self._outgoing: Link | None = None
        self._pages: list[list[int]] = []  # what is held, by page, in the order of the queue
        self._prefetch = 0
        self._consumers = 0

    async def __aenter__(self) -> Self:
        self._link = link = await Link.open(self._url, "quarantine")
        try:
            self._reading = await link.channel(confirms=False)
        except BaseException:
            await link.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is not None:
            with suppress(BrokerUnavailableError):  # a broker that is away puts everything back by itself
                await self._put_back()
            await self._link.close()
        if self._outgoing is not None:
            await self._outgoing.close()

    async def count(self) -> int:
        """How many letters there are, besides those that somebody is reading."""
        try:
            with translated(f"looking at {DEAD}"):
                declared = await self._reading.queue_declare(DEAD, passive=True, timeout=TIMEOUT_S)
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                raise UnroutableError(NO_QUEUE) from error
            raise
        return declared.message_count or 0

    # -- what an operator does ------------------------------------------------------------------------------------

    async def find(self, choice: Choice) -> AsyncIterator[Held]:
        """The chosen letters, oldest first; all stay where they are."""
        async for page in self._read(choice):
            for held in page:
                yield held

    async def replay(self, choice: Choice) -> AsyncIterator[DeadLetter]:
        """Gives the chosen letters back to the queues they came from; yields each once it is there and gone from here.

        Each is acknowledged only after its confirm. Between the two a crash leaves it in both queues; replayed again,
        intake takes it for the repeat that it is.
        """
        self._outgoing = await Link.open(self._url, "replay")
        sending = await self._outgoing.channel(confirms=True)
        async for page in self._read(choice):
            try:
                await self._publish(sending, [held.letter for held in page])
            except BrokerUnavailableError as error:
                if await self._outgoing.blocked():  # the broker tells only whoever publishes
                    raise BrokerUnavailableError(ALARM) from error
                raise
            await self._acknowledge(page)
            for held in page:
                yield held.letter

    async def purge(self, choice: Choice) -> AsyncIterator[DeadLetter]:
        """Throws the chosen letters away, for ever."""
        async for page in self._read(choice):
            await self._acknowledge(page)
            for held in page:
                yield held.letter

    async def purge_all(self) -> int:
        """Throws away whatever is there, for ever; how many that were."""
        await self.count()
        with translated(f"purging {DEAD}"):
            purged = await self._reading.queue_purge(DEAD, timeout=TIMEOUT_S)
        return purged.message_count or 0

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self, choice: Choice) -> AsyncIterator[list[Held]]:
        """The chosen ones of each page. What comes in meanwhile (a letter that was replayed may come back at once) is
        left for the next time."""
        left, found = await self.count(), list[str]()
        while left > 0:
            page = await self._page(min(PAGE, left))
            self._pages.append([held.tag for held in page])
            chosen = [held for held in page if choice.takes(held.letter)]
            if choice.limit is not None:
                chosen = chosen[: choice.limit - len(found)]
            found += [held.letter.letter_id for held in chosen]
            yield chosen
            short = len(page) < min(PAGE, left)  # somebody else reads, too
            left -= len(page)
            # Letters that were put back come first, and go behind each other when put back again: reading on until
            # there are no more of them keeps the order.
            if short or (choice.complete(found) and not page[-1].returned):
                return

    async def _page(self, size: int) -> list[Held]:
        link = self._link
        assert link is not None  # noqa: S101 - entered
        arrived: list[Held] = []
        full = asyncio.Event()
        first = sum(map(len, self._pages)) + 1

        async def on_message(delivered: DeliveredMessage) -> None:
            if delivered.delivery_tag is not None:
                letter = read_dead_letter(
                    bytes(delivered.body), encoded_of(delivered.header.properties), delivered.routing_key or ""
                )
                position = first + len(arrived)
                arrived.append(Held(letter, position, delivered.delivery_tag, bool(delivered.redelivered)))
            if len(arrived) >= size:
                full.set()

        self._consumers += 1
        tag = f"page-{self._consumers:09d}"
        with translated(f"reading {DEAD}"):
            if self._prefetch != size:
                await self._reading.basic_qos(prefetch_count=size, timeout=TIMEOUT_S)
                self._prefetch = size
            await self._reading.basic_consume(DEAD, on_message, consumer_tag=tag, timeout=TIMEOUT_S)
            with suppress(TimeoutError):  # what was counted is with somebody else
                await asyncio.wait_for(link.lost_or(full), PAGE_TIMEOUT_S)
            await self._reading.basic_cancel(tag, timeout=TIMEOUT_S)
        return arrived

    # -- writing --------------------------------------------------------------------------------------------------

    async def _publish(self, channel: Channel, letters: Sequence[DeadLetter]) -> None:
        """Confirmed, in their order; UnroutableError when one of them did not get into a queue."""
        returns = Returns.of(channel)
        before = returns.count
        publishing = (self._publish_one(channel, letter) for letter in letters)
        for failed in await asyncio.gather(*publishing, return_exceptions=True):
            if isinstance(failed, aiormq.exceptions.DeliveryError):
                raise UnroutableError("The queue of a letter refused it; the letter is still here.") from failed
            if isinstance(failed, BaseException):
                missing = isinstance(failed.__cause__, aiormq.exceptions.ChannelNotFoundEntity)
                if missing:
                    raise UnroutableError(NO_WAY_BACK) from failed
                raise failed
        if returns.count != before:
            raise UnroutableError(NO_WAY_BACK)

    async def _publish_one(self, channel: Channel, letter: DeadLetter) -> None:
        key, properties = replay_of(letter)
        with translated(f"publishing to {COMMANDS}"):
            confirmed = await channel.basic_publish(
                letter.body,
                exchange=COMMANDS,
                routing_key=key,
                properties=properties,
                mandatory=True,
                timeout=TIMEOUT_S,
                wait=False,
            )
        if not isinstance(confirmed, aiormq.spec.Basic.Ack):
            raise BrokerUnavailableError(f"The broker did not confirm a message to {COMMANDS}.")

    async def _acknowledge(self, page: Sequence[Held]) -> None:
        with translated(f"acknowledging letters of {DEAD}"):
            for held in page:
                await self._reading.basic_ack(held.tag)
                self._pages[-1].remove(held.tag)
        await self.count()  # an answer on the same channel: the broker has the acknowledgements

    async def _put_back(self) -> None:
        """Everything that is held, page by page, each in one command."""
        held, self._pages = [page for page in self._pages if page], []
        ready, waits = (await self.count()) if held else 0, True
        for number, page in enumerate(held, 1):
            with translated(f"putting letters back into {DEAD}"):
                await self._reading.basic_nack(page[-1], multiple=True, requeue=True)
            ready += len(page)
            if waits and (number % PAGES_PUT_BACK == 0 or number == len(held)):
                waits = await self._are_back(ready)

    async def _are_back(self, ready: int) -> bool:
        """Waits until that many letters can be read again; False when others take or hold some."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                while True:  # the broker does not tell when a message is back
                    if await self.count() >= ready:
                        return True
                    await asyncio.sleep(0.002)
        return False
