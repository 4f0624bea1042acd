"""The messages of the AsyncAPI document: what each carries as headers, properties and payload, with its examples."""

from __future__ import annotations

from typing import Any

from service.contracts.events import TRACEPARENT
from service.contracts.examples import Example, examples
from service.contracts.schemas import CANCEL, ENVELOPED, REQUEST
from service.domain.errors import ErrorCode
from service.domain.states import EventName
from service.wire.envelope import CLOUDEVENTS_JSON, REQUEST_ID

Node = dict[str, Any]
SCHEMAS = "#/components/schemas/"
BINDING = {"bindingVersion": "0.3.0"}
SUMMARIES = {
    EventName.ACCEPTED: "Stored; from here it cannot be lost.",
    EventName.SUBMITTED: "The hub has given ids.",
    EventName.OUTPUT: "One of several outputs ended.",
    EventName.SUCCEEDED: "The end: all outputs ended, at least one succeeded.",
    EventName.FAILED: "The end: none succeeded, or the request was refused.",
    EventName.CANCELLED: "The end: cancelled on request, or at the hub.",
    EventName.EXPIRED: "The end: its deadline passed.",
    EventName.REJECTED: "The answer to a message that was not accepted.",
}


def messages() -> Node:
    """All of them by their names in the document."""
    shown = examples()
    found: Node = {
        REQUEST: _message("GenerationRequest", "A request", "application/json", _request_headers()),
        REQUEST + ENVELOPED: _message(
            "GenerationRequestCloudEvent", "A request in a CloudEvents envelope", CLOUDEVENTS_JSON, _request_headers()
        ),
        CANCEL: _message("GenerationCancel", "A cancel", "application/json", _cancel_headers()),
        CANCEL + ENVELOPED: _message(
            "GenerationCancelCloudEvent", "A cancel in a CloudEvents envelope", CLOUDEVENTS_JSON, _cancel_headers()
        ),
    }
    for name in EventName:
        title = f"Generation{short_name(name).capitalize()}"
        found[name] = {
            **_message(title, SUMMARIES[name], CLOUDEVENTS_JSON, _event_headers(name)),
            "bindings": {"amqp": {"messageType": name.value, **BINDING}},
        }
    for message, node in found.items():
        node["name"] = str(message)
        node["examples"] = [_shown(key, example) for key, example in shown.items() if example.message == message]
    return {**{key_of(name): node for name, node in found.items()}, "letter": _letter()}


def _message(schema: str, title: str, content_type: str, headers: Node) -> Node:
    return {
        "name": "",
        "title": title,
        "contentType": content_type,
        "correlationId": {"location": "$message.header#/correlation_id"},
        "headers": headers,
        "payload": {"$ref": SCHEMAS + schema},
    }


def _shown(name: str, example: Example) -> Node:
    return {"name": name, "summary": example.title, "payload": example.body}


def _letter() -> Node:
    reasons = [code.value for code in (ErrorCode.INVALID_MESSAGE, ErrorCode.IDEMPOTENCY_CONFLICT, ErrorCode.INTERNAL)]
    said = {
        "x-drover-id": "Names the letter to `drover dead`.",
        "x-drover-detail": "The reason in words.",
        "x-drover-source": "Who sent it.",
        "x-drover-time": "When it was put away (RFC 3339).",
        "x-drover-queue": "Where it was taken from.",
        "x-drover-exchange": "Where it had been published.",
        "x-drover-routing-key": "With which routing key.",
        "x-drover-user-id": "Its property `user_id`, which is taken out.",
        "x-drover-expiration": "Its property `expiration`, which is taken out.",
        "x-drover-left-out": "There when its own headers were too large to be kept.",
    }
    reason = {"type": "string", "description": "Why it was put away.", "x-extensible-enum": reasons}
    headers = {name: {"type": "string", "description": text} for name, text in said.items()}
    headers["x-drover-headers"] = {"type": "object", "description": "The headers that it came with."}
    return {
        "name": "letter",
        "title": "A message in quarantine",
        "description": (
            "Body and properties as they came. What the broker itself put there, after 20 failed deliveries, has its "
            "`x-death` headers instead of these."
        ),
        "headers": {"type": "object", "properties": {"x-drover-reason": reason, **headers}},
        "payload": {"description": "Whatever was published; it need not be JSON."},
    }


# -- headers and properties -------------------------------------------------------------------------------------------


def _request_headers() -> Node:
    return _headers(
        message_id=_property("The request id, where the body has none.", pattern=f"^{REQUEST_ID.pattern}$"),
        **_caller(),
        app_id=_property(
            "Who sends: the source, among whose requests `priority` counts. `user_id`, if set, goes first."
        ),
        user_id=_property("The broker's user, checked by the broker; it must be the one that is connected."),
    )


def _cancel_headers() -> Node:
    return _headers(message_id=_property("The cancel's own; it names no request."), **_caller())


def _caller() -> dict[str, Node]:
    return {
        "correlation_id": _property("Goes along with every event of the request."),
        "reply_to": _property("A queue to which the terminal event goes besides."),
    }


def _event_headers(name: EventName) -> Node:
    return _headers(
        message_id=_property("The event's `id`.", format="uuid"),
        correlation_id=_property("That of the request; absent when it had none."),
        type=_property("The event's name.", const=name.value),
    )


def _headers(**properties: Node) -> Node:
    trace = {
        "traceparent": {"type": "string", "pattern": TRACEPARENT, "description": "W3C Trace Context; goes along."},
        "tracestate": {"type": "string", "description": "W3C Trace Context; goes along."},
    }
    return {"type": "object", "properties": {**properties, **trace}}


def _property(description: str, **more: str) -> Node:
    return {"type": "string", "description": description, **more, "x-amqp-property": True}


# -- names ------------------------------------------------------------------------------------------------------------


def short_name(name: EventName) -> str:
    """`accepted` of `generation.accepted`."""
    return name.value.partition(".")[2]


def key_of(message: str) -> str:
    """`request.cloudevents` of `generation.request.cloudevents`: a name of its own in the document."""
    return str(message).removeprefix("generation.")
