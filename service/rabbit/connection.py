"""One AMQP connection with its channels, and the errors of three libraries turned into ours.

Not `connect_robust`: every (re)connect here goes through the one path of the first start (connect, declare, consume),
and what was held from a lost connection is known to be void. The robust classes restore some of that by themselves,
at moments of their own, and keep silent consumers when a queue is deleted.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aio_pika
import aiormq
from aiormq.channel import Channel
from aiormq.connection import Connection as FrameConnection
from yarl import URL

from service.cancellation import raise_if_cancelled
from service.domain.errors import BrokerUnavailableError, ConfigurationError
from service.tls import TlsNames, tls_fault

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
HEARTBEAT_S = 10
# aiormq hands frames to its writer through a queue of ten, and a publisher waits, with the channel's lock in its hand,
# whenever that is full: one publish a turn of the loop. Measured in a busy loop: 602/s with 10, 10,507/s with this.
# What comes in goes through such queues, too, one for each channel, and these stay short: so a long backlog is taken in
# at the pace of the loop, and does not run ahead of what is paid for (`tests/bench/PROFILE.md`).
FrameConnection.FRAME_BUFFER_SIZE = 10_000

TLS = TlsNames("DROVER_AMQP_URL", "cafile", ("certfile", "keyfile"))
REFUSED = (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError)
LOST = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    OSError,
    TimeoutError,
    ssl.SSLError,
    RuntimeError,
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns every way in which the broker can be away into BrokerUnavailableError.

    A frozen broker makes aiormq raise CancelledError in tasks that nobody cancelled: that, too, is a lost connection.
    And the other way round: whoever was cancelled stays cancelled, whatever was raised instead, or nothing at all
    (`wait_for` of Python 3.11 forgets a cancellation that comes with the result).
    """
    try:
        yield
        raise_if_cancelled()
    except asyncio.CancelledError as error:
        raise_if_cancelled(error)
        raise BrokerUnavailableError(f"The connection to RabbitMQ was lost ({doing}).") from error
    except REFUSED as error:
        raise ConfigurationError(
            f"RabbitMQ refuses the login ({doing}); check user, password and vhost of DROVER_AMQP_URL."
        ) from error
    except aiormq.exceptions.DeliveryError:
        raise
    except LOST as error:
        raise_if_cancelled(error)
        told = str(error) or type(error).__name__
        raise BrokerUnavailableError(f"RabbitMQ did not do it ({doing}): {told}") from error


async def _connect(connection: aio_pika.Connection, name: str) -> None:
    with translated(f"connecting the {name}"):
        try:
            await connection.connect(timeout=CONNECT_TIMEOUT_S)
        except aiormq.exceptions.InvalidFrameError as error:  # a Close where the answer to Open was due
            raise BrokerUnavailableError(
                "RabbitMQ does not open the vhost of DROVER_AMQP_URL: it is not there (yet), or not for this user."
            ) from error
        except REFUSED:
            raise
        except StopAsyncIteration as error:  # before the first frame: a balancer without a node
            raise BrokerUnavailableError(
                "RabbitMQ could not be reached (the connection was closed at once); check that it runs, "
                "and DROVER_AMQP_URL."
            ) from error
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailableError(f"RabbitMQ could not be reached{_why(error, connection.url)}.") from error


def _why(error: BaseException, url: URL) -> str:
    if (fault := tls_fault(error)) is not None:
        return f": {fault}; {TLS.remedy(fault)}"
    if isinstance(error.__cause__, ConnectionResetError | asyncio.IncompleteReadError):
        # What a TLS port says to a plain client, and a server that wants another client certificate to ours.
        mend = (
            "certfile= and keyfile=, if it wants a certificate" if url.scheme == "amqps" else "amqps:// for a TLS port"
        )
        return f": it ended the connection at once; check DROVER_AMQP_URL ({mend})"
    return f" ({str(error) or type(error).__name__}); check that it runs, and DROVER_AMQP_URL"


class Link:
    """A connection of its own for one purpose; `lost` is set when it, or a channel of it, is gone, for `reason`."""

    def __init__(self, connection: aio_pika.abc.AbstractConnection) -> None:
        self._connection = connection
        self._channels: list[aio_pika.abc.AbstractChannel] = []  # a wrapper must outlive its underlay
        self._underlay: Channel | None = None
        self.lost = asyncio.Event()
        self.reason = ""
        connection.close_callbacks.add(self._on_closed)

    @classmethod
    async def open(cls, url: str, name: str) -> Link:
        """Connects. ConfigurationError for a wrong login, or a certificate file that cannot be read;
        BrokerUnavailableError when the broker is away, or shows a certificate that is not trusted."""
        if URL(url).scheme == "amqps" and (unreadable := TLS.unreadable(url)) is not None:
            raise ConfigurationError(unreadable)
        connection = aio_pika.Connection(
            URL(url).update_query(heartbeat=str(HEARTBEAT_S)),
            client_properties={"connection_name": f"drover {name}"},
        )
        try:
            await _connect(connection, name)
        except BaseException:
            await connection.close()  # left to the garbage collector, it would close itself at a moment of its own
            raise
        return cls(connection)

    async def channel(self, *, confirms: bool, needed: bool = True) -> Channel:
        """A channel of the frame level: batches of acknowledgements and pipelined confirms need it. The link is lost
        with a channel that is `needed`."""
        with translated("opening a channel"):
            channel = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await channel.initialize(timeout=CONNECT_TIMEOUT_S)
            if needed:
                channel.close_callbacks.add(self._on_closed)
            underlay = await channel.get_underlay_channel()
        if not isinstance(underlay, Channel):
            raise TypeError(f"aio-pika gave a {type(underlay).__name__} where an aiormq channel was expected.")
        # A deleted queue, a moved leader: the broker ends the consumer and nothing else would tell.
        underlay.on_consumer_cancel_callbacks.add(self._on_consumer_ended)
        self._channels.append(channel)
        self._underlay = underlay
        return underlay

    @property
    def server_version(self) -> str:
        """What the broker calls its version; empty before the first channel, or when it does not say."""
        told = None if self._underlay is None else self._underlay.connection.server_properties.get("version")
        return told if isinstance(told, str) else ""

    async def lost_or(self, event: asyncio.Event) -> None:
        """Waits until the connection is lost or `event` is set."""
        waiting = [asyncio.ensure_future(self.lost.wait()), asyncio.ensure_future(event.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def blocked(self) -> bool:
        """Whether the broker takes nothing that is published here: an alarm. The library waits for its end, and tells
        nobody that there is one."""
        if self._underlay is None:
            return False
        try:
            async with asyncio.timeout(0):
                await self._underlay.connection.ready()
        except TimeoutError:
            return not self.lost.is_set()
        return False

    def _on_closed(self, _: object, cause: object = None) -> None:
        told = str(cause) if isinstance(cause, BaseException) else ""
        self.lose(told or "the connection was closed")

    def _on_consumer_ended(self, _: object) -> None:
        self.lose("the broker ended the consumer: its queue was deleted, or has moved")

    def lose(self, reason: str) -> None:
        """Lets it count as lost from here on, unless it does."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    async def close(self) -> None:
        """Closes; a broker that does not answer is left."""
        self.lose("closed by us")
        with suppress(BrokerUnavailableError), translated("closing"):
            await asyncio.wait_for(self._connection.close(), CLOSE_TIMEOUT_S)
