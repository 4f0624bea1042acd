"""A message in quarantine: how it is written, what it says, and what it was. Pure: bytes in, values out.

What drover puts away has its reason and origin in headers `x-drover-...` and its own headers whole inside one of them,
so that nothing in a message can pass for what drover or the broker says about it. What the broker itself puts away
(after twenty returns) has `x-death` instead.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.domain.messages import ANONYMOUS_SOURCE, Message
from service.rabbit.fields import (
    Entry,
    encode_array,
    encode_table,
    encode_text,
    read_array,
    read_table,
    read_text,
    read_value,
)
from service.rabbit.properties import Encoded, Properties, Verbatim, encoded_of
from service.rabbit.topology import CANCEL_KEY, CANCELS, REQUEST_KEY, REQUESTS

OURS = b"x-drover-"
ID, REASON, SOURCE, TIME = "x-drover-id", "x-drover-reason", "x-drover-source", "x-drover-time"
DETAIL, MOST_DETAIL = "x-drover-detail", 500
QUEUE, EXCHANGE, ROUTING_KEY = "x-drover-queue", "x-drover-exchange", "x-drover-routing-key"
HEADERS, LEFT_OUT = "x-drover-headers", "x-drover-left-out"
# Taken out of the properties: the broker refuses another's user_id, and an expiration would end the quarantine.
ASIDE = {"user_id": "x-drover-user-id", "expiration": "x-drover-expiration"}
COUNTS = (b"x-delivery-count", b"x-acquired-count")  # the broker's, renewed at each delivery
DEATHS = b"x-death"
KEYS = {REQUESTS: REQUEST_KEY, CANCELS: CANCEL_KEY}  # of the queues that a message can have come from
LETTER_ID = re.compile(r"[0-9a-f]{12}")
PERSISTENT = b"\x02"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in quarantine; `properties` and `headers` are those it came with, encoded.

    `queue` is where it was taken from and a replay puts it; `exchange` and `routing_key` where it had been published.
    `left_out` is true when its headers were too large to be kept.
    """

    letter_id: str
    reason: str
    source: str
    queue: str
    exchange: str
    routing_key: str
    died_at: datetime | None
    body: bytes
    properties: Encoded
    headers: tuple[Entry, ...]
    left_out: bool = False
    detail: str = ""


# -- into the quarantine ----------------------------------------------------------------------------------------------


def put_away(message: Message, reason: str, letter_id: str, now: datetime, largest: int, detail: str = "") -> Verbatim:
    """The properties with which a message goes into quarantine (`detail`: the reason in words), at most `largest` bytes
    of them (AMQP has no more room than one frame); where its own headers make it more, they are left out, and that is
    said."""
    kept = dict(message.properties) or _plain(message)
    own = kept.pop("headers", None)
    facts = {
        ID: letter_id,
        REASON: reason,
        DETAIL: detail[:MOST_DETAIL],
        SOURCE: message.source,
        TIME: now.isoformat(timespec="milliseconds"),
        QUEUE: message.queue,
        EXCHANGE: message.exchange,
        ROUTING_KEY: message.routing_key,
        "traceparent": message.traceparent,
        "tracestate": message.tracestate,
    }
    said = [(name.encode(), encode_text(value)) for name, value in facts.items() if value]
    said += [(header.encode(), encode_text(kept.pop(name)[1:])) for name, header in ASIDE.items() if name in kept]
    kept["delivery_mode"] = PERSISTENT
    whole = [*said, (HEADERS.encode(), b"F" + own)] if own is not None else said
    letter = Verbatim({**kept, "headers": encode_table(whole)})
    if len(letter.marshal()) > largest:
        letter.encoded["headers"] = encode_table([*said, (LEFT_OUT.encode(), encode_text("headers"))])
    return letter


def _plain(message: Message) -> dict[str, bytes]:
    """Of a message that did not come over the bus."""
    return encoded_of(
        Properties(
            content_type=message.content_type,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
        )
    )


# -- read in the quarantine -------------------------------------------------------------------------------------------


def read_dead_letter(body: bytes, properties: Encoded, routing_key: str = "") -> DeadLetter:
    """What a message in the quarantine says about itself. Never raises, whatever was published there."""
    headers = _entries(properties.get("headers", b""))
    found = dict(headers)
    death = next((death for death in _deaths(found) if _text(death, "queue") in KEYS), None)
    if death is not None:
        return _from_broker(body, properties, headers, death)
    texts = {name.decode("ascii", "replace"): read_text(value) or "" for name, value in headers}
    key = texts.get(ROUTING_KEY, routing_key)
    aside = {name: _short(found.get(header.encode())) for name, header in ASIDE.items()}
    origin = {**properties, **{name: value for name, value in aside.items() if value is not None}}
    if HEADERS.encode() in found:
        own = _entries(found[HEADERS.encode()][1:])
    else:
        own = [entry for entry in headers if not entry[0].startswith(OURS)]
    return DeadLetter(
        letter_id=_known_id(texts) or _id_of(body, properties),
        reason=texts.get(REASON) or "unknown",
        source=texts.get(SOURCE) or _source(properties),
        queue=texts[QUEUE] if texts.get(QUEUE) in KEYS else CANCELS if key == CANCEL_KEY else REQUESTS,
        exchange=texts.get(EXCHANGE, ""),
        routing_key=key,
        died_at=_time(texts.get(TIME)),
        body=body,
        properties={name: value for name, value in origin.items() if name != "headers"},
        headers=tuple(entry for entry in own if entry[0] not in COUNTS),
        left_out=LEFT_OUT in texts,
        detail=texts.get(DETAIL, ""),
    )


def _from_broker(body: bytes, properties: Encoded, headers: Sequence[Entry], death: dict[bytes, bytes]) -> DeadLetter:
    """`x-death` counts first: a publisher can write every other header, but the broker keeps its own record there."""
    keys = read_array(death.get(b"routing-keys", b""))
    died_at = read_value(death[b"time"]) if b"time" in death else None
    origin = {name: value for name, value in properties.items() if name != "headers"}
    expiration = _short(death.get(b"original-expiration"))
    if expiration is not None:
        origin["expiration"] = expiration
    return DeadLetter(
        letter_id=_id_of(body, properties, *(death.get(name, b"") for name in (b"queue", b"reason", b"time"))),
        reason=_text(death, "reason") or "unknown",
        source=_source(properties),
        queue=_text(death, "queue") or REQUESTS,
        exchange=_text(death, "exchange") or "",
        routing_key=read_text(keys[0]) or "" if keys else "",
        died_at=died_at if isinstance(died_at, datetime) else None,
        body=body,
        properties=origin,
        headers=tuple(_without_deaths(headers)),
    )


def _without_deaths(headers: Sequence[Entry]) -> list[Entry]:
    """The headers as they came: without what the broker wrote when it put the message away here."""
    found = dict(headers)
    elsewhere = [value for value in read_array(found[DEATHS]) if _text(_death(value), "queue") not in KEYS]
    kept = []
    for name, value in headers:
        died = re.fullmatch(rb"x-(first|last)-death-(queue|reason|exchange)", name)
        if name == DEATHS and elsewhere:
            kept.append((name, encode_array(elsewhere)))
        elif name == DEATHS or name in COUNTS:
            continue
        elif died is None or read_text(found.get(b"x-" + died[1] + b"-death-queue")) not in KEYS:
            kept.append((name, value))
    return kept


# -- out of the quarantine --------------------------------------------------------------------------------------------


def replay_of(letter: DeadLetter) -> tuple[str, Verbatim]:
    """The routing key and the properties with which it goes back to where it was taken from.

    As it came, with four exceptions: it is persistent; a `user_id`, which the broker takes from its owner alone,
    becomes the `app_id` (the source stays the same); an `expiration`, which was counted from the first publishing, and
    a `CC` header, which would send it to other queues once more, are left out.
    """
    kept = {**letter.properties, "delivery_mode": PERSISTENT}
    kept.pop("expiration", None)
    user = kept.pop("user_id", None)
    if user is not None:
        kept["app_id"] = user
    headers = [entry for entry in letter.headers if entry[0] != b"CC"]
    if headers:
        kept["headers"] = encode_table(headers)
    return KEYS[letter.queue], Verbatim(kept)


def message_of(letter: DeadLetter) -> Message:
    """As much of the message as tells its request id; the `message_id` of a cancel is none."""
    properties, _ = readable(letter)
    content_type = properties.get("content_type")
    message_id = None if letter.queue == CANCELS else properties.get("message_id")
    return Message(
        letter.body,
        content_type=content_type if isinstance(content_type, str) else None,
        message_id=message_id if isinstance(message_id, str) else None,
    )


def readable(letter: DeadLetter) -> tuple[dict[str, object], dict[str, object]]:
    """The properties (`type` by that name) and headers that it came with, decoded where they can be."""
    properties = Properties()
    encoded = Verbatim(letter.properties).marshal()
    properties.unmarshal(int.from_bytes(encoded[:2], "big"), encoded[2:])
    values = {name: getattr(properties, name) for name in properties.__slots__ if name in letter.properties}
    if "message_type" in values:
        values["type"] = values.pop("message_type")
    return values, {name.decode("utf-8", "backslashreplace"): read_value(value) for name, value in letter.headers}


# -- small readers ----------------------------------------------------------------------------------------------------


def _entries(table: bytes) -> list[Entry]:
    try:
        return read_table(table)
    except ValueError:
        return []


def _deaths(headers: dict[bytes, bytes]) -> list[dict[bytes, bytes]]:
    """The broker's record, newest first."""
    try:
        return [_death(value) for value in read_array(headers.get(DEATHS, b""))]
    except ValueError:
        return []


def _death(value: bytes) -> dict[bytes, bytes]:
    return dict(_entries(value[1:])) if value[:1] == b"F" else {}


def _text(death: dict[bytes, bytes], name: str) -> str | None:
    return read_text(death.get(name.encode()))


def _short(value: bytes | None) -> bytes | None:
    """A text value as a property has it."""
    if value is None or value[:1] != b"S":
        return None
    content = value[5:260]
    return bytes((len(content),)) + content


def _source(properties: Encoded) -> str:
    """As intake names it: the user that the broker has checked, else the application, if they are text."""
    for name in ("user_id", "app_id"):
        try:
            source = properties.get(name, b"")[1:].decode()
        except UnicodeDecodeError:
            continue
        if source and "\x00" not in source:
            return source
    return ANONYMOUS_SOURCE


def _time(value: str | None) -> datetime | None:
    try:
        read = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _known_id(texts: dict[str, str]) -> str | None:
    given = texts.get(ID, "")
    return given if LETTER_ID.fullmatch(given) else None


def _id_of(body: bytes, properties: Encoded, *death: bytes) -> str:
    """An id for what has none: the same for the same message, however often the broker delivers it."""
    told = sorted((name, value) for name, value in properties.items() if name != "headers")
    return hashlib.sha256(repr((body, told, death)).encode()).hexdigest()[:12]
