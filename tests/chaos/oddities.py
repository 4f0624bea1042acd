"""Messages as no sane producer would send them, and some sane ones between: from a seed and a number, always the same.

Pure: bytes of bodies and of AMQP properties, down to what no client library would write.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.odd_properties import ODD_TEXTS, PROPERTIES, odd_property, short

MODELS = ("ltx-2-3-quality-text-to-video", "flux-2-dev-text-to-image", "llama-3-3-70b-instruct")
FIELDS = ("model", "num_generations", "target_namespace", "priority", "deadline", "metadata", "input")
PARAMETERS = (
    "prompt", "num_frames", "resolution", "frames_per_second", "generate_audio", "video_quality", "seed", "model",
    "response_format", "", "\ud800",
)  # fmt: skip
LIMIT = 256 * 1024  # the contract's, of a body


@dataclass(frozen=True, slots=True)
class Oddity:
    """One message, its properties encoded. `tracer` is its correlation id; where that is odd itself (`traced` false)
    it is the request id."""

    number: int
    kind: str
    body: bytes
    properties: Mapping[str, bytes]
    tracer: str
    traced: bool


class Raw(str):
    """JSON text that stands for itself."""

    __slots__ = ()


Pairs = list[tuple[str, Any]]


def oddity(seed: int, number: int) -> Oddity:
    """The message of that number."""
    rng = Random(f"{seed}:{number}")  # noqa: S311 - repeatable, not secret
    (kind,) = rng.choices(tuple(KINDS), [weight for weight, _ in KINDS.values()])
    tracer = f"fuzz-{seed}-{number}"
    fields: dict[str, bytes] = {"correlation_id": short(tracer), "delivery_mode": b"\x02"}
    body = KINDS[kind][1](rng, tracer, fields)
    traced = fields["correlation_id"] == short(tracer)
    return Oddity(number, kind, body, fields, tracer, traced)


# -- JSON that may be odd ---------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """JSON, with raw parts as they are and pairs as an object that may repeat its keys."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return "{" + ", ".join(f"{json.dumps(key)}: {text(item)}" for key, item in value) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {text(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def nested(rng: Random) -> Raw:
    """Lists or objects in each other; some deeper than any parser goes."""
    depth = rng.choice((5, 60, 190, 200, 201, 500, 5000, 60000))
    return Raw("[" * depth + "]" * depth) if rng.random() < 0.5 else Raw('{"a":' * depth + "1" + "}" * depth)


ODD_NUMBERS = (
    0, -1, 1, 3, 4, 5, 8, 9, 481, 482, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**40, 0.1, -0.0,
    4.0, 5e-324, 1.7976931348623157e308, Raw("1e400"), Raw("-1e400"), Raw("NaN"), Raw("Infinity"), Raw("01"), Raw("1."),
    Raw(".5"), Raw("+1"), Raw("0x10"), Raw("1" * 5000), Raw("1e-400"), Raw("123456789012345678901234567890.5"),
)  # fmt: skip
ODD_TIMES = (
    "2030-02-30T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2030-01-01",
    "2030-01-01T00:00:00",
    "2030-01-31T12:00:00.123456789123456789Z", "2030-01-31t12:00:00z", "2030-01-31T12:00:60Z", "1970-01-01T00:00:00Z",
    "2030-01-31T24:00:00Z", "２０３０-01-31T12:00:00Z", "2030-01-31T12:00:00+99:99",
)  # fmt: skip


def odd_value(rng: Random) -> Any:  # noqa: ANN401 - anything, that is the point
    """Something that a field does not expect."""
    match rng.randrange(9):
        case 0:
            return rng.choice((None, True, False))
        case 1 | 2:
            return rng.choice(ODD_NUMBERS)
        case 3 | 4:
            return rng.choice(ODD_TEXTS)
        case 5:
            return rng.choice(ODD_TIMES)
        case 6:
            return rng.choice(([], {}, [None] * 300, {"a": {"b": [1, {"c": None}]}}, [[]] * 20, {"": ""}, {"\x00": 1}))
        case 7:
            return nested(rng)
        case _:
            return "".join(chr(rng.choice((rng.randrange(1, 0x250), rng.randrange(1, 0xD800)))) for _ in range(20))


def sane(rng: Random, request_id: str) -> Pairs:
    """A request with nothing wrong in it."""
    parameters: dict[str, Any] = {"prompt": f"clip {rng.randrange(1000)}"}
    if rng.random() < 0.3:
        parameters |= {"num_frames": rng.randint(9, 481), "seed": rng.randrange(2**31)}
    request: Pairs = [("request_id", request_id), ("input", parameters)]
    optional: Pairs = [
        ("model", MODELS[0]),
        ("num_generations", rng.randint(1, 2)),
        ("priority", rng.randrange(10)),
        ("deadline", "2099-01-31T12:00:00+05:30"),
        ("metadata", {"team": "fuzz", "n": rng.random()}),
    ]
    return request + [pair for pair in optional if rng.random() < 0.2]


def mutated(rng: Random, request: Pairs) -> Pairs:
    """With one to three things wrong, or at least unusual."""
    pairs = list(request)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(pairs)) if pairs else 0
        match rng.randrange(7):
            case 0 | 1 if pairs:
                pairs[at] = (pairs[at][0], odd_value(rng))
            case 2:
                pairs.append((rng.choice(FIELDS), odd_value(rng)))
            case 3:
                pairs.append(
                    (rng.choice(("unknown", "", "Request_Id", "specversion", "\x00", "input ")), odd_value(rng))
                )
            case 4 if pairs:
                del pairs[at]
            case 5 if pairs:
                pairs.append((pairs[at][0], rng.choice((pairs[at][1], odd_value(rng)))))
            case _:
                pairs.append(("input", [("prompt", "x"), (rng.choice(PARAMETERS), odd_value(rng))]))
    return pairs


def utf8(rng: Random, document: object) -> bytes:
    """As bytes: mostly escaped, sometimes not, lone surrogates and all."""
    written = text(document)
    if rng.random() < 0.8:
        return written.encode("utf-8", "surrogatepass")
    unescaped = written.encode("ascii", "replace").decode("unicode_escape")
    return unescaped.encode("utf-8", "surrogatepass")


# -- the kinds: each gives a body, and changes the properties --------------------------------------------------------

Fields = dict[str, bytes]


def a_sane_one(rng: Random, tracer: str, _: Fields) -> bytes:
    """What most messages are."""
    return text(sane(rng, tracer)).encode()


def a_structured_one(rng: Random, tracer: str, fields: Fields) -> bytes:
    """JSON, field by field changed."""
    if rng.random() < 0.3:
        fields["message_id"] = short(f"m-{tracer}")
    return utf8(rng, mutated(rng, sane(rng, tracer)))


def an_envelope(rng: Random, tracer: str, fields: Fields) -> bytes:
    """A CloudEvent, half right."""
    data: Any = sane(rng, tracer) if rng.random() < 0.7 else mutated(rng, sane(rng, tracer))
    if rng.random() < 0.1:
        data = rng.choice((text(data), [data], None, nested(rng)))
    event: Pairs = [
        ("specversion", rng.choice(("1.0", "1.0", "1.0", "0.3", 1.0, "1.0.2"))),
        ("id", tracer),
        ("source", "/fuzz"),
        ("type", "fuzz.request"),
        ("data", data),
        ("datacontenttype", rng.choice(("application/json", "application/json; charset=utf-8", "text/plain"))),
    ]
    if rng.random() < 0.5:
        event.append((rng.choice(("traceparent", "tracestate", "extension", "data_base64", "time")), odd_value(rng)))
    if rng.random() < 0.5:
        event = mutated(rng, event)
    if rng.random() < 0.8:
        types = ("application/cloudevents+json", "application/CloudEvents+JSON; charset=x", "application/cloudevents")
        fields["content_type"] = short(rng.choice(types))
    return utf8(rng, event)


def odd_properties(rng: Random, tracer: str, fields: Fields) -> bytes:
    """A sane body under properties of every type and no sense."""
    for name in rng.sample(PROPERTIES, rng.randint(1, 4)):
        fields[name] = odd_property(rng, name)
    if rng.random() < 0.1:
        fields["expiration"] = short(rng.choice(("0", "1", "60000")))
    identified = "message_id" not in fields or fields["correlation_id"] != short(tracer)
    request = sane(rng, tracer)
    return text(request if identified else request[1:]).encode()


def the_same_id(rng: Random, tracer: str, _: Fields) -> bytes:
    """A few ids for many messages, with the same content or with another."""
    seed, number = tracer.split("-")[1:]
    request_id = f"same-{seed}-{int(number) // 200}"
    return text({"request_id": request_id, "input": {"prompt": rng.choice("aab")}}).encode()


def a_cancel(rng: Random, tracer: str, fields: Fields) -> bytes:
    """Of a message sent a while ago, or of one to come; sometimes of nothing."""
    seed, number = tracer.split("-")[1:]
    named: Pairs = [("request_id", f"fuzz-{seed}-{max(0, int(number) + rng.randint(-400, 40))}")]
    for name in rng.sample(PROPERTIES, rng.randrange(3)):
        if name != "correlation_id":
            fields[name] = odd_property(rng, name)
    match rng.randrange(10):
        case 0 | 1:
            return utf8(rng, mutated(rng, named))
        case 2:
            return bytes_of_no_sense(rng, tracer, fields)
        case 3:
            return utf8(rng, {"specversion": "1.0", "id": tracer, "source": "f", "type": "t", "data": dict(named)})
        case _:
            return text(named).encode()


def bytes_of_no_sense(rng: Random, tracer: str, fields: Fields) -> bytes:
    """No JSON, or nearly."""
    if rng.random() < 0.3:
        fields["message_id"] = short(rng.choice((f"m-{tracer}", "not an id", "")))
    whole = text(sane(rng, tracer)).encode()
    at = rng.randrange(len(whole))
    odd: Sequence[Callable[[], bytes]] = (
        lambda: rng.randbytes(rng.randrange(600)),
        lambda: whole[:at],
        lambda: whole[:at] + b"\x00" + whole[at:],
        lambda: whole[:at] + rng.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80")) + whole[at:],
        lambda: b"\xef\xbb\xbf" + whole,
        lambda: whole.decode().encode(rng.choice(("utf-16", "utf-32", "utf-16-le"))),
        lambda: gzip.compress(whole, mtime=0),
        lambda: whole + rng.choice((b"{}", b"x", b"\n" + whole, b"\x00")),
        lambda: rng.choice((b"", b"1", b"null", b'"x"', b"[]", b"{}", b"true", b"\x00", b"[" * 100_000)),
        lambda: whole.replace(b'"', b"'"),
        lambda: b"/* c */ " + whole,
    )
    return rng.choice(odd)()


def a_large_one(rng: Random, tracer: str, _: Fields) -> bytes:
    """Around the limit, and far beyond."""
    size = rng.choice((LIMIT - 200, LIMIT, LIMIT + 1, 3 * LIMIT))
    whole = text({"request_id": tracer, "input": {"prompt": ""}}).encode()
    return whole.replace(b'""', b'"' + b"x" * (size - len(whole)) + b'"')


KINDS: Mapping[str, tuple[float, Callable[[Random, str, Fields], bytes]]] = {
    "sane": (15, a_sane_one),
    "structured": (40, a_structured_one),
    "envelope": (15, an_envelope),
    "properties": (14, odd_properties),
    "same id": (5, the_same_id),
    "cancel": (8, a_cancel),
    "raw": (10.7, bytes_of_no_sense),
    "large": (0.3, a_large_one),
}
