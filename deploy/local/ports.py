"""Free loopback ports, and questions put to what listens there."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
FIRST, LAST = 15000, 32000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Whether a server could listen on it now; connections still in TIME_WAIT do not matter."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(names: Sequence[str], recorded: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name, the recorded one where that is free.

    Not from the range that outgoing connections use: a client that keeps trying a port of that range while the server
    is down ends up connected to itself, and then the server cannot come back.
    """
    chosen: dict[str, int] = {}
    for name in names:
        port = recorded.get(name)
        while port is None or not is_free(port) or port in chosen.values():
            port = random.randint(FIRST, _last())  # noqa: S311 - two clones must differ, nobody must guess
        chosen[name] = port
    return chosen


def _last() -> int:
    try:
        low = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return LAST
    return LAST if low > LAST or low <= FIRST + 1000 else low - 1


def accepts(host: str, port: int, timeout: float = 3) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def speaks_amqp(host: str, port: int, timeout: float = 3) -> bool:
    """Whether an AMQP 0-9-1 broker answers: the protocol header is met with Connection.Start (class 10, method 10)."""
    try:
        with socket.create_connection((host, port), timeout) as broker:
            broker.sendall(b"AMQP\x00\x00\x09\x01")
            answer = b""
            while len(answer) < 11:
                part = broker.recv(64)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer[:1] == b"\x01" and answer[7:11] == b"\x00\x0a\x00\x0a"
