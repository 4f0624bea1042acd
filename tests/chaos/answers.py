"""What came back of odd messages, and what became of each by it."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field

from aiormq.abc import DeliveredMessage

from service.rabbit.dead_letters import read_dead_letter
from service.rabbit.properties import Encoded, encoded_of
from tests.chaos.oddities import Oddity

TERMINAL = tuple(f"generation.{end}" for end in ("succeeded", "failed", "cancelled", "expired"))


@dataclass(slots=True)
class Answers:
    """All that came back. Messages are told apart by tracer; one with an odd correlation id by its request id."""

    accepted: dict[str, str] = field(default_factory=dict)  # tracer or request id: request id
    rejected: set[str] = field(default_factory=set)  # tracers and request ids
    ended: set[str] = field(default_factory=set)  # tracers
    ends: dict[str, set[str]] = field(default_factory=dict)  # request id: ids of its terminal events
    dead: dict[str, str] = field(default_factory=dict)  # tracer or digest of the body: reason
    unchanged: set[str] = field(default_factory=set)  # of the dead: body and properties
    kept: set[str] = field(default_factory=set)  # request ids that were cancelled before they came
    generations: set[str] = field(default_factory=set)
    count: int = 0

    async def on_event(self, delivered: DeliveredMessage) -> None:
        """Notes an event."""
        self.count += 1
        event, properties = json.loads(delivered.body), delivered.header.properties
        tracer, request_id = properties.correlation_id or "", event.get("subject", "")
        if properties.message_type == "generation.accepted":
            self.accepted[tracer] = self.accepted[request_id] = request_id
        elif properties.message_type == "generation.rejected":
            self.rejected |= {tracer, request_id}
        elif properties.message_type in TERMINAL:
            self.ended.add(tracer)
            self.ends.setdefault(request_id, set()).add(event["id"])
            self.generations |= {output["generation_id"] for output in event["data"]["outputs"]}

    async def on_dead(self, delivered: DeliveredMessage) -> None:
        """Notes a quarantined message, and whether it is what was sent."""
        self.count += 1
        letter = read_dead_letter(bytes(delivered.body), encoded_of(delivered.header.properties))
        tracer = letter.properties.get("correlation_id", b"\0")[1:].decode("utf-8", "replace")
        self.dead[tracer] = self.dead[digest(letter.body)] = letter.reason
        self.unchanged |= {identity(letter.body, letter.properties)}

    def of(self, sent: Oddity, name: str | None) -> str | None:
        """What became of a message, whose body names that request; None while nothing has."""
        if (reason := self.dead.get(sent.tracer if sent.traced else digest(sent.body))) is not None:
            return f"dead, {reason}" if identity(sent.body, sent.properties) in self.unchanged else "dead and changed"
        if (request_id := self.accepted.get(sent.tracer)) is not None:
            return "ended" if request_id in self.ends else None
        if sent.tracer in self.rejected:
            return "rejected"
        if sent.tracer in self.ended or name in self.ends:
            return "applied" if sent.kind == "cancel" else "repeated"
        return "kept" if sent.kind == "cancel" and name in self.kept else None


Sent = tuple[Oddity, str | None]  # with the request id that the body names


def digest(body: bytes) -> str:
    """A body's name."""
    return hashlib.sha256(body).hexdigest()


def identity(body: bytes, properties: Encoded) -> str:
    """A message's name: its body and its properties. Reasons are added to the headers, and what is kept is durable."""
    kept = sorted(item for item in properties.items() if item[0] not in ("headers", "delivery_mode"))
    return digest(body + repr(kept).encode())


def named(body: bytes) -> str | None:
    """The request that a body names: a repeat has no event of its own, when another repeat follows it."""
    with suppress(ValueError, LookupError, RecursionError, AttributeError, TypeError):
        document = json.loads(body)
        given = document.get("request_id") or document["data"].get("request_id")
        return given if isinstance(given, str) else None
    return None
