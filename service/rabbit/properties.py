"""Reads what comes with a message piece by piece, so that an odd piece costs that message and nothing else.

pamqp raises for a short string that is not UTF-8, a timestamp beyond the year 9999 (some producers send nanoseconds) or
a strange header name. aiormq then ends the connection, at each delivery of that message, and each end counts against
every message that was delivered beside it: after twenty the broker would put all of them out of the way.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiormq
from pamqp import decode
from pamqp.base import Frame

Properties = aiormq.spec.Basic.Properties
SIZES = {"octet": 1, "timestamp": 8}
KINDS = tuple((name, Properties.flags[name], getattr(Properties, f"_{name}")) for name in Properties.__slots__)
Encoded = Mapping[str, bytes]  # properties by name, each as it is on the wire


class Verbatim(Properties):
    """Properties that are sent as they are, whatever a decoder would make of them."""

    def __init__(self, encoded: Encoded) -> None:
        super().__init__()
        self.encoded = dict(encoded)

    def marshal(self) -> bytes:
        """The flags, and each property unchanged."""
        present = [name for name in self.__slots__ if name in self.encoded]
        flags = sum(self.flags[name] for name in present)
        return flags.to_bytes(2, "big") + b"".join(self.encoded[name] for name in present)


def encoded_of(properties: Properties) -> dict[str, bytes]:
    """What was received, property by property, or would be sent."""
    known = vars(properties).get("encoded")
    if isinstance(known, dict):
        return dict(known)
    given = ((name, getattr(properties, name)) for name in properties.__slots__)
    return {name: properties.encode_property(name, value) for name, value in given if value not in (None, "")}


def tolerate_odd_properties() -> None:
    """From here on, in the whole process, a property that cannot be decoded is left as bytes, and a routing key that
    is not text is read with escapes."""
    Properties.unmarshal = _unmarshal  # type: ignore[method-assign, assignment]
    for frame in (aiormq.spec.Basic.Deliver, aiormq.spec.Basic.GetOk, aiormq.spec.Basic.Return):
        frame.unmarshal = _unmarshal_delivery  # type: ignore[method-assign]


def _unmarshal(self: Properties, flags: int, data: bytes) -> None:
    encoded: dict[str, bytes] = {}
    for name, flag, kind in KINDS:
        if not flags & flag:
            continue
        value: object
        try:
            size, value = decode.by_type(data, kind)
        except Exception:  # noqa: BLE001 - whatever the decoder makes of it: this message alone is at fault
            size = _size(data, kind)
            value = data[:size]
        setattr(self, name, value)
        encoded[name] = data[:size]
        data = data[size:]
    vars(self)["encoded"] = encoded


def _size(data: bytes, kind: str) -> int:
    """How many bytes an encoded property takes (AMQP 0-9-1, section 4.2.5)."""
    if kind == "shortstr":
        return 1 + data[0]
    if kind == "table":
        return 4 + int.from_bytes(data[:4], "big")
    return SIZES[kind]


def _unmarshal_delivery(self: Frame, data: bytes) -> None:
    """The frame before the properties; whatever names the publisher chose, it must be read."""
    for name in self.__slots__:
        kind = self.amqp_type(name)
        value: object
        if kind == "shortstr":
            size = 1 + data[0]
            value = data[1:size].decode("utf-8", "backslashreplace")
        elif kind == "bit":  # only `redelivered`, in an octet of its own
            size, value = 1, bool(data[0] & 1)
        else:
            size, value = decode.by_type(data, kind)
        setattr(self, name, value)
        data = data[size:]
