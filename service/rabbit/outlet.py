"""A publishing connection that is kept open, with its channels."""

from __future__ import annotations

import asyncio

import structlog
from aiormq.channel import Channel

from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.domain.retry import Backoff
from service.rabbit.connection import Link, translated
from service.rabbit.topology import declare

log = structlog.get_logger(__name__)


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

    @property
    def connected(self) -> bool:
        """Whether something can be published now."""
        return bool(self._channels) and self._link is not None and not self._link.lost.is_set()

    def channel(self, index: int) -> Channel:
        """One of the channels. BrokerUnavailableError while there is none."""
        if not self._channels:
            raise BrokerUnavailableError(f"RabbitMQ is not connected ({self._purpose}).")
        return self._channels[index]

    async def wait_connected(self, timeout_s: float) -> None:
        """Waits for a connection. BrokerUnavailableError."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError as error:
            raise BrokerUnavailableError(
                f"RabbitMQ was not reached within {timeout_s:g} s ({self._purpose})."
            ) from error

    async def run(self) -> None:
        """Works until cancelled."""
        backoff, failures = Backoff(first=0.2, limit=10), 0
        while True:
            try:
                await self._stay_connected()
                failures = 0
                log.warning("bus.lost", purpose=self._purpose)
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
                with translated("declaring the topology"):
                    await declare(await link.channel(confirms=False))
            self._channels = tuple([await link.channel(confirms=True) for _ in range(self._count)])
            self._connected.set()
            log.info("bus.connected", purpose=self._purpose)
            await link.lost.wait()
        finally:
            self._channels = ()
            self._connected.clear()
            await link.close()
