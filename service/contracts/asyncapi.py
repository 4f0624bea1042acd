"""The AsyncAPI 3.0 document of the bus: drover is the application, so it receives requests and sends events.

A channel is what a message is published with, exchange and routing key. AsyncAPI's AMQP bindings have no place for the
arguments of an exchange, nor for the queue behind a routing key: those stand in `x-arguments` and `x-queue`. They have
none for the properties of a message either: those stand among the headers, each marked `x-amqp-property`. A test
compares the names and arguments with those that the service declares.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.contracts.bus_messages import BINDING, SCHEMAS, SUMMARIES, Node, key_of, messages, short_name
from service.contracts.schemas import CANCEL, ENVELOPED, REQUEST, components
from service.domain.states import EventName
from service.wire.envelope import CLOUDEVENTS_JSON

VERSION = "1.0.0"  # of the contract: it rises with the documents, and its first number with what breaks somebody
MESSAGES = "#/components/messages/"
COMMANDS, EVENTS, UNROUTED, DEAD = (f"generation.{name}" for name in ("commands", "events", "unrouted", "dead"))
NO_LIMIT = 1_000_000
WORK: Node = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
EXCHANGES: dict[str, tuple[str, Node]] = {
    COMMANDS: ("topic", {}),
    EVENTS: ("topic", {"alternate-exchange": UNROUTED}),
    UNROUTED: ("topic", {}),
    DEAD: ("fanout", {}),
}
QUEUES: dict[str, Node] = {
    "generation.requests": WORK,
    "generation.cancels": WORK,
    UNROUTED: {
        "x-queue-type": "quorum",
        "x-message-ttl": 7 * 24 * 3600 * 1000,
        "x-max-length": 100_000,
        "x-overflow": "drop-head",
        "x-delivery-limit": NO_LIMIT,
    },
    DEAD: {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT},
}
TERMINAL = [name for name in EventName if name.terminal]
BINDINGS: dict[str, tuple[str, list[str]]] = {
    "generation.requests": (COMMANDS, [REQUEST]),
    "generation.cancels": (COMMANDS, [CANCEL]),
    UNROUTED: (UNROUTED, [name.value for name in TERMINAL]),
    DEAD: (DEAD, [""]),
}
DESCRIPTION = """\
drover stands between a message bus and the Oxen hub: a message that says "make me this video" goes in, and an event \
that says where the video is comes out. This document describes drover as the application: it receives what you send, \
and sends what you receive.

Everything is durable, and declared by drover at its start. Publish persistent messages with confirms and `mandatory`; \
bind a queue of your own to the exchange `generation.events`. Events come at least once, with the same `id` on every \
repeat; order those of a request by `sequence`, which rises. Exactly one terminal event follows each accepted request. \
Ignore what you do not know: objects in events may get more fields, and lists marked `x-extensible-enum` more values."""


def document() -> Node:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "drover",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CLOUDEVENTS_JSON,
        "servers": _servers(),
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": components(SCHEMAS),
            "messages": messages(),
            "securitySchemes": {"user": {"type": "userPassword", "description": "A user of the broker."}},
        },
    }


def _servers() -> Node:
    security = [{"$ref": "#/components/securitySchemes/user"}]
    plain = {"protocolVersion": "0.9.1", "security": security}
    return {
        "rabbitmq": {
            "host": "rabbitmq.example:5672",
            "protocol": "amqp",
            **plain,
            "description": "The operator's RabbitMQ, 3.10 or later (DROVER_AMQP_URL).",
        },
        "rabbitmq-tls": {
            "host": "rabbitmq.example:5671",
            "protocol": "amqps",
            **plain,
            "description": "The same over TLS.",
        },
    }


# -- channels ---------------------------------------------------------------------------------------------------------


def _channels() -> Node:
    commands = {
        "request": _channel(COMMANDS, REQUEST, "Requests", [REQUEST, REQUEST + ENVELOPED], "generation.requests"),
        "cancel": _channel(COMMANDS, CANCEL, "Cancels", [CANCEL, CANCEL + ENVELOPED], "generation.cancels"),
    }
    events = {short_name(name): _channel(EVENTS, name, SUMMARIES[name], [name]) for name in EventName}
    return {
        **commands,
        **events,
        "replies": {
            "address": None,
            "title": "Replies",
            "description": (
                "The queue that a message names in its property `reply_to`, by the default exchange; the broker's "
                "direct reply-to works too. The terminal event goes there besides. Best effort: what cannot be routed "
                "is not tried again. The name of one of drover's own queues is refused."
            ),
            "messages": _references(TERMINAL),
        },
        "unrouted": {
            **_queue_channel(UNROUTED, "Terminal events that nobody had bound a queue for; kept for seven days."),
            "messages": _references(TERMINAL),
        },
        "dead": {
            **_queue_channel(DEAD, "Messages that were not taken, as they came; `drover dead` reads and replays them."),
            "messages": _references(["letter"]),
        },
    }


def _channel(exchange: str, key: str, title: str, carried: list[str], queue: str | None = None) -> Node:
    kind, arguments = EXCHANGES[exchange]
    bound = {"x-queue": _queue(queue)} if queue else {}
    told = {"name": exchange, "type": kind, "durable": True, "autoDelete": False}
    return {
        "address": str(key),
        "title": title,
        "messages": _references(carried),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {**told, "x-arguments": arguments} if arguments else told,
                **bound,
                **BINDING,
            }
        },
    }


def _queue_channel(queue: str, description: str) -> Node:
    kind, arguments = EXCHANGES[queue]
    exchange = {"name": queue, "type": kind, "durable": True, "autoDelete": False, "x-arguments": arguments}
    binding = {"is": "queue", "queue": _queue(queue), "x-exchange": exchange, **BINDING}
    return {"address": queue, "title": queue, "description": description, "bindings": {"amqp": binding}}


def _queue(name: str) -> Node:
    exchange, keys = BINDINGS[name]
    return {
        "name": name,
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
        "x-arguments": QUEUES[name],
        "x-bindings": [{"exchange": exchange, "routingKey": key} for key in keys],
    }


# -- operations -------------------------------------------------------------------------------------------------------


def _operations() -> Node:
    sent = {
        f"send{short_name(name).capitalize()}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{short_name(name)}"},
            "summary": SUMMARIES[name],
            "messages": _of_channel(short_name(name), [name]),
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": name.terminal, **BINDING}},
        }
        for name in EventName
    }
    return {
        "receiveRequest": _received(
            "request", [REQUEST, REQUEST + ENVELOPED], "Takes a request, at most 256 KiB of it."
        ),
        "receiveCancel": _received("cancel", [CANCEL, CANCEL + ENVELOPED], "Takes a cancel."),
        **sent,
        "quarantine": {
            "action": "send",
            "channel": {"$ref": "#/channels/dead"},
            "summary": "Puts away what has no usable id, or a known id and other content, or breaks drover.",
            "messages": _of_channel("dead", ["letter"]),
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, **BINDING}},
        },
    }


def _received(channel: str, carried: list[str], summary: str) -> Node:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": _of_channel(channel, carried),
        "bindings": {"amqp": {"ack": True, **BINDING}},
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property `reply_to`; without it, the event goes to the exchange alone.",
            },
            "channel": {"$ref": "#/channels/replies"},
            "messages": _of_channel("replies", TERMINAL),
        },
    }


# -- names ------------------------------------------------------------------------------------------------------------


def _references(messages: Sequence[str]) -> Node:
    return {key_of(name): {"$ref": MESSAGES + key_of(name)} for name in messages}


def _of_channel(channel: str, messages: Sequence[str]) -> list[Node]:
    return [{"$ref": f"#/channels/{channel}/messages/{key_of(name)}"} for name in messages]
