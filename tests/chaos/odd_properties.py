"""AMQP properties byte by byte (0-9-1, section 4.2.5, and RabbitMQ's types): encoded well, and of no sense."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from random import Random

# All but those for which the broker would close the channel: user_id, cluster_id, an expiration that is no number.
PROPERTIES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "message_id", "timestamp", "message_type", "app_id",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\ufeff", "\u2028\u2029", "\U0001f9a9" * 40, "e\u0301" * 50,
    "\u202egnp.exe", "x" * 129, "y" * 5000, "null", "{}", "%s%n%d", "../../etc/passwd", "'; drop table requests; --",
    "$1", "{{7*7}}", "__proto__", "\\", '"', "\r\n\r\n", "\x1b[31m", "-0", "1e999", "ltx-2-3 quality", "a/b?c#d", "%00",
)  # fmt: skip


def short(value: str | bytes) -> bytes:
    """A short string."""
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return bytes([len(raw[:255])]) + raw[:255]


def long(raw: bytes) -> bytes:
    """A long string, or what else begins with its length."""
    return struct.pack(">I", len(raw)) + raw


def odd_property(rng: Random, name: str) -> bytes:
    """A value that is encoded well, and that nobody expects."""
    if name in ("delivery_mode", "priority"):
        return bytes([rng.randrange(1, 3) if name == "delivery_mode" else rng.randrange(256)])
    if name == "timestamp":
        return struct.pack(">Q", rng.choice((0, 1, 253402300800, 1_700_000_000_000_000_000, 2**63, 2**64 - 1)))
    if name == "headers":
        return odd_table(rng)
    if name == "reply_to" and rng.random() < 0.6:
        queues = ("nobody", "generation.requests", "generation.dead", "amq.rabbitmq.reply-to.")
        return short(rng.choice((*queues, "amq.rabbitmq.reply-to.%%%.x", "amq.rabbitmq.reply-to.AAAA.BBBB")))
    return short(rng.choice((*ODD_TEXTS, b"\xff\xfe", rng.randbytes(255), b"\xe9t\xe9", f"odd-{rng.random()}")))


def odd_table(rng: Random) -> bytes:
    """A header table, with names that the service reads among its own."""
    names = ("traceparent", "tracestate", "x-drover-reason", "x-delivery-count", "x", "", "\u00e9", b"\xff", "n" * 128)
    return long(b"".join(short(rng.choice(names)) + odd_field(rng) for _ in range(rng.randrange(6))))


def odd_field(rng: Random, depth: int = 0) -> bytes:
    """A value of any type that there is."""
    scalars: Mapping[bytes, Callable[[], bytes]] = {
        b"t": lambda: bytes([rng.randrange(2)]),
        b"b": lambda: rng.randbytes(1),
        b"B": lambda: rng.randbytes(1),
        b"s": lambda: rng.randbytes(2),
        b"u": lambda: rng.randbytes(2),
        b"I": lambda: rng.randbytes(4),
        b"i": lambda: rng.randbytes(4),
        b"l": lambda: rng.randbytes(8),
        b"f": lambda: struct.pack(">f", rng.choice((0.1, -0.0, 3e38, 1e-45))),  # a NaN ends the producer's connection
        b"d": lambda: struct.pack(">d", rng.choice((0.1, -0.0, 1.7e308, 5e-324))),
        b"D": lambda: rng.randbytes(5),
        b"S": lambda: long(rng.choice((b"", b"text", b"\xff\xff", b"a\x00b", rng.randbytes(300)))),
        b"x": lambda: long(rng.randbytes(20)),
        b"T": lambda: rng.randbytes(8),
        b"V": lambda: b"",
        b"A": lambda: long(b"".join(odd_field(rng, depth + 1) for _ in range(rng.randrange(4)))),
        b"F": lambda: long(b"".join(short("k") + odd_field(rng, depth + 1) for _ in range(rng.randrange(4)))),
    }
    if depth == 0 and rng.random() < 0.02:
        return deep_table(rng.choice((50, 1500)))
    kind = rng.choice(tuple(scalars) if depth < 4 else tuple(b"tsilSV"[i : i + 1] for i in range(6)))
    return kind + scalars[kind]()


def deep_table(depth: int) -> bytes:
    """Tables in tables."""
    table = b""
    for _ in range(depth):
        table = short("a") + b"F" + long(table)
    return b"F" + long(table)
