"""Field tables (AMQP headers) entry by entry, as bytes: one odd value hides no other, and all go back unchanged.

An entry is a name and a value; a value begins with the octet of its type (AMQP 0-9-1, section 4.2.5.5, and RabbitMQ's
errata to it).
"""

from __future__ import annotations

from collections.abc import Iterable

from pamqp import decode

Entry = tuple[bytes, bytes]
FIXED = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    ord("D"): 5,
    **dict.fromkeys(b"lLdT", 8),
    **dict.fromkeys(b"V\x00", 0),
}
COUNTED = b"SxAF"  # four octets of length go before


def read_table(table: bytes) -> list[Entry]:
    """The entries of a table, which begins with its length. ValueError when it is none."""
    found = []
    at, end = 4, 4 + _length(table, 0)
    if end != len(table):
        raise ValueError("The table is cut off.")
    while at < end:
        begin = at + 1 + table[at]
        name, at = table[at + 1 : begin], begin + _size(table, begin)
        found.append((name, table[begin:at]))
    if at != end:
        raise ValueError("The last entry is cut off.")
    return found


def encode_table(items: Iterable[Entry]) -> bytes:
    """A table of these entries, with its length."""
    content = b"".join(bytes((len(name),)) + name + value for name, value in items)
    return len(content).to_bytes(4, "big") + content


def read_array(array: bytes) -> list[bytes]:
    """The values of an array value; none when it is something else. ValueError when it is cut off."""
    if array[:1] != b"A":
        return []
    found, at, end = [], 5, 5 + _length(array, 1)
    if end != len(array):
        raise ValueError("The array is cut off.")
    while at < end:
        begin, at = at, at + _size(array, at)
        found.append(array[begin:at])
    return found


def encode_array(values: Iterable[bytes]) -> bytes:
    """An array value of these values."""
    return b"A" + _counted(b"".join(values))


def encode_text(value: str | bytes) -> bytes:
    """A text value; bytes are taken for encoded text."""
    return b"S" + _counted(value if isinstance(value, bytes) else value.encode("utf-8", "backslashreplace"))


def read_value(value: bytes) -> object:
    """What a value means; the bytes themselves when nobody can tell."""
    try:
        return decode.embedded_value(value)[1]
    except Exception:  # noqa: BLE001 - a text that is none, a time beyond the calendar, a table nested too deep
        return value[5:] if value[:1] and value[0] in COUNTED else value[1:]


def read_text(value: bytes | None) -> str | None:
    """The text in a text value, with escapes for what is none; None for everything else."""
    return None if value is None or value[:1] != b"S" else value[5:].decode("utf-8", "backslashreplace")


def _counted(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _length(data: bytes, at: int) -> int:
    if len(data) < at + 4:
        raise ValueError("A length is cut off.")
    return int.from_bytes(data[at : at + 4], "big")


def _size(data: bytes, at: int) -> int:
    """How many bytes the value takes that begins there, with its type."""
    if at >= len(data):
        raise ValueError("A value is cut off.")
    kind = data[at]
    if kind in COUNTED:
        return 5 + _length(data, at + 1)
    if kind not in FIXED:
        raise ValueError("A value has an unknown type.")
    return 1 + FIXED[kind]
