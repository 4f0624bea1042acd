"""Reads the properties of a message one by one, so that an odd one costs that message and nothing else.

pamqp raises for a short string that is not UTF-8, a timestamp beyond the year 9999 (some producers send nanoseconds) or
a strange header name. aiormq then ends the connection, at each delivery of that message, and each end counts against
every message that was delivered beside it: after twenty the broker would put all of them out of the way.
"""

from __future__ import annotations

import aiormq
from pamqp import decode

Properties = aiormq.spec.Basic.Properties
SIZES = {"octet": 1, "timestamp": 8}


def tolerate_odd_properties() -> None:
    """From here on a property that cannot be decoded is left as bytes, in the whole process."""
    Properties.unmarshal = _unmarshal  # type: ignore[method-assign, assignment]


def _unmarshal(self: Properties, flags: int, data: bytes) -> None:
    for name in self.__slots__:
        if not flags & self.flags[name]:
            continue
        kind = getattr(type(self), f"_{name}")
        value: object
        try:
            size, value = decode.by_type(data, kind)
        except Exception:  # noqa: BLE001 - whatever the decoder makes of it: this message alone is at fault
            size = _size(data, kind)
            value = data[:size]
        setattr(self, name, value)
        data = data[size:]


def _size(data: bytes, kind: str) -> int:
    """How many bytes an encoded property takes (AMQP 0-9-1, section 4.2.5)."""
    if kind == "shortstr":
        return 1 + data[0]
    if kind == "table":
        return 4 + int.from_bytes(data[:4], "big")
    return SIZES[kind]
