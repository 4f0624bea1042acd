"""A publishing connection that is kept open, with its channels."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import aiormq
import structlog
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.domain.retry import Backoff
from service.rabbit.connection import Link, translated
from service.rabbit.topology import provide

log = structlog.get_logger(__name__)
ALARM = "an alarm (memory or disk)"
LOOK_S = 0.5


class Outlet:
    """Connects again and again; while connected it has `channels` channels with confirms."""

    def __init__(self, url: str, purpose: str, *, channels: int, declares: bool) -> None:
        self._url = url
        self._purpose = purpose
        self._count = channels
        self._declares = declares
        self._link: Link | None = None
        self._channels: tuple[Channel, ...] = ()
        self._connected = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._blocked_since = 0.0

    @property
    def connected(self) -> bool:
        """Whether something can be published now."""
        return bool(self._channels) and self._link is not None and not self._link.lost.is_set()

    @property
    def blocked(self) -> bool:
        """Whether the broker has raised an alarm, and takes nothing from publishers until it is over."""
        return not self._unblocked.is_set()

    async def wait_unblocked(self, timeout_s: float) -> None:
        """Returns at once unless an alarm blocks publishers. BrokerUnavailableError.

        What is written in spite of it waits in the socket, and is published at the end of the alarm, once for each try.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._unblocked.wait()
        except TimeoutError as error:
            raise BrokerUnavailableError(f"RabbitMQ blocks publishers: {ALARM}.") from error

    def channel(self, index: int) -> Channel:
        """One of the channels. BrokerUnavailableError while there is none."""
        if not self._channels:
            raise BrokerUnavailableError(f"RabbitMQ is not connected ({self._purpose}).")
        return self._channels[index]

    async def wait_connected(self, timeout_s: float) -> None:
        """Waits for a connection. BrokerUnavailableError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._channels:  # lost again, maybe, before this runs
                    await self._connected.wait()
        except TimeoutError as error:
            raise BrokerUnavailableError(
                f"RabbitMQ was not reached within {timeout_s:g} s ({self._purpose})."
            ) from error

    async def publish(
        self,
        index: int,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: aiormq.spec.Basic.Properties,
        *,
        mandatory: bool,
        timeout_s: float,
    ) -> None:
        """One message on one of the channels, confirmed. BrokerUnavailableError when it was not, or nobody knows;
        aiormq's DeliveryError when the broker refused it, or returned what is `mandatory`."""
        await self.wait_unblocked(timeout_s)
        channel = self.channel(index)
        try:
            with translated(f"publishing to {exchange or 'a queue'}"):
                confirmed = await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=properties,
                    mandatory=mandatory,
                    timeout=timeout_s,
                    wait=False,
                )
        except BrokerUnavailableError as error:
            if not isinstance(error.__cause__, TimeoutError):
                self._give_up(channel, error.__cause__)
            raise
        if not isinstance(confirmed, aiormq.spec.Basic.Ack):
            raise BrokerUnavailableError(f"The broker did not confirm a message to {exchange or routing_key}.")

    async def run(self) -> None:
        """Works until cancelled."""
        backoff, failures = Backoff(first=0.2, limit=2), 0
        while True:
            try:
                await self._stay_connected()
                failures = 0
                log.warning("bus.lost", purpose=self._purpose, reason=self._link.reason if self._link else "")
            except (BrokerUnavailableError, ConfigurationError) as error:
                failures += 1
                log.warning("bus.not_connected", purpose=self._purpose, reason=str(error), failures=failures)
            await asyncio.sleep(backoff.jittered(max(failures, 1)))

    async def close(self) -> None:
        """Closes the connection."""
        if self._link is not None:
            await self._link.close()

    async def _stay_connected(self) -> None:
        self._link = link = await Link.open(self._url, self._purpose)
        try:
            if self._declares:
                await provide(link)
            self._channels = tuple([await link.channel(confirms=True) for _ in range(self._count)])
            self._connected.set()
            log.info("bus.connected", purpose=self._purpose)
            while not link.lost.is_set():
                self._note(blocked=await link.blocked())
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await link.lost.wait()
        finally:
            self._channels = ()
            self._connected.clear()
            self._unblocked.set()  # the next connection will be told
            await link.close()

    def _give_up(self, channel: Channel, cause: BaseException | None) -> None:
        """What a lost connection breaks off hears of it some turns of the loop before we do, and a second try in those
        would be lost with it."""
        if channel in self._channels and self._link is not None:
            self._channels = ()
            self._connected.clear()
            self._link.lose(str(cause) or type(cause).__name__)

    def _note(self, *, blocked: bool) -> None:
        if blocked and not self.blocked:
            self._unblocked.clear()
            self._blocked_since = time.monotonic()
            log.warning("publishing.blocked", purpose=self._purpose, reason=ALARM)
        elif self.blocked and not blocked:
            self._unblocked.set()
            after_s = round(time.monotonic() - self._blocked_since, 1)
            log.info("publishing.unblocked", purpose=self._purpose, after_s=after_s)
