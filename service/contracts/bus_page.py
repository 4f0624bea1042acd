"""The half of the page that an AsyncAPI document tells: servers, channels, operations, messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from service.contracts.fields import field_table, resolved, table
from service.contracts.markup import Child, Markup, anchor, element, inline, joined, link, prose
from service.contracts.parts import Part, Section, example, folded, part

Document = Mapping[str, Any]
PREFIX = "bus"
ACTIONS = {"receive": "Taken by {}: what you send", "send": "Sent by {}: what you receive"}


def bus_part(document: Document) -> Part:
    """The whole of it."""
    info = _node(document.get("info"))
    name = str(info.get("title", "the application"))
    operations = [_operations(document, action, words.format(name)) for action, words in ACTIONS.items()]
    sections = [_servers(document), *operations, _messages(document), _channels(document)]
    return part(PREFIX, f"{name}: the bus", info, sections)


def _node(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}


def _servers(document: Document) -> Section:
    rows: list[list[Child]] = [
        [name, element("code", f"{server.get('protocol')}://{server.get('host')}{server.get('pathname', '')}"),
         inline(server.get("description"))]
        for name, server in _node(document.get("servers")).items()
    ]  # fmt: skip
    body = table(("server", "address", "meaning"), rows) if rows else Markup()
    return Section(anchor(PREFIX, "servers"), "Servers", body)


# -- operations -------------------------------------------------------------------------------------------------------


def _operations(document: Document, action: str, title: str) -> Section:
    found = {
        name: operation
        for name, operation in _node(document.get("operations")).items()
        if operation.get("action") == action
    }
    body = joined(_operation(name, operation, document) for name, operation in found.items())
    entries = tuple(
        (anchor(PREFIX, "operation", name), _address(operation, document)) for name, operation in found.items()
    )
    return Section(anchor(PREFIX, "operations", action), title, body, entries)


def _operation(name: str, operation: Document, document: Document) -> Markup:
    title = [
        element("span", str(operation["action"]), class_=f"tag {operation['action']}"),
        _address(operation, document),
    ]
    reply = _node(operation.get("reply"))
    return joined(
        [
            element("h3", title, id=anchor(PREFIX, "operation", name)),
            prose(operation.get("summary")),
            prose(operation.get("description")),
            element(
                "p",
                "Channel: ",
                _channel_link(operation),
                "; messages: ",
                _message_links(operation, document),
                class_="meta",
            ),
            _reply(reply, document) if reply else None,
            _binding(operation),
        ]
    )


def _reply(reply: Document, document: Document) -> Markup:
    address = _node(reply.get("address"))
    where = [" at ", element("code", str(address["location"])), " "] if "location" in address else None
    return element(
        "p", "Reply", where, ": ", inline(address.get("description")), " Messages: ", _message_links(reply, document),
        class_="meta",
    )  # fmt: skip


def _address(operation: Document, document: Document) -> str:
    channel = resolved(_node(operation.get("channel")), document)
    return str(channel.get("address") or channel.get("title") or "")


def _channel_link(operation: Document) -> Markup:
    name = str(_node(operation.get("channel")).get("$ref", "")).rpartition("/")[2]
    return link(f"#{anchor(PREFIX, 'channel', name)}", name)


def _message_links(carrying: Document, document: Document) -> list[Child]:
    """An operation's messages are those of its channel, which are those of the components."""
    links: list[Child] = []
    for reference in carrying.get("messages") or ():
        target = _pointed(reference, document)
        links += [", " if links else "", link(f"#{anchor(PREFIX, 'message', target)}", target)]
    return links


def _pointed(reference: Document, document: Document) -> str:
    """The name among the components that a reference, or a reference to a reference, ends at."""
    text = str(reference.get("$ref", ""))
    while text.startswith("#/channels/"):
        node: object = document
        for step in text.removeprefix("#/").split("/"):
            node = _node(node).get(step.replace("~1", "/").replace("~0", "~"))
        if not isinstance(node, Mapping) or "$ref" not in node:
            break
        text = str(node["$ref"])
    return text.rpartition("/")[2]


# -- channels ---------------------------------------------------------------------------------------------------------


def _channels(document: Document) -> Section:
    channels = _node(document.get("channels"))
    body = joined(_channel(name, channel, document) for name, channel in channels.items())
    entries = tuple((anchor(PREFIX, "channel", name), name) for name in channels)
    return Section(anchor(PREFIX, "channels"), "Channels", body, entries)


def _channel(name: str, channel: Document, document: Document) -> Markup:
    address = channel.get("address")
    carried = [{"$ref": f"#/channels/{name}/messages/{key}"} for key in _node(channel.get("messages"))]
    return joined(
        [
            element("h3", name, id=anchor(PREFIX, "channel", name)),
            element("p", str(channel["title"])) if channel.get("title") not in (None, name, address) else None,
            prose(channel.get("description")),
            element(
                "p",
                ["Address: ", element("code", str(address))] if address else "Address: given by the message",
                "; messages: ", _message_links({"messages": carried}, document),
                class_="meta",
            ),
            _binding(channel),
        ]
    )  # fmt: skip


def _binding(node: Document) -> Markup | None:
    """The AMQP binding as rows; what is nested, as it is."""
    binding = _node(_node(node.get("bindings")).get("amqp"))
    rows: list[list[Child]] = []
    for key, value in binding.items():
        if isinstance(value, Mapping):
            rows += [[element("code", f"{key}.{inner}"), _shown(told)] for inner, told in value.items()]
        elif key != "bindingVersion":
            rows.append([element("code", key), _shown(value)])
    return folded("AMQP binding", table(("property", "value"), rows)) if rows else None


def _shown(value: object) -> Markup:
    if isinstance(value, Mapping):
        return joined(element("span", element("code", f"{key}: {told}"), class_="limit") for key, told in value.items())
    if isinstance(value, list):
        return joined(element("span", _shown(item), class_="limit") for item in value)
    return element("code", value if isinstance(value, str) else json.dumps(value))


# -- messages ---------------------------------------------------------------------------------------------------------


def _messages(document: Document) -> Section:
    found = _node(_node(document.get("components")).get("messages"))
    body = joined(_message(name, message, document) for name, message in found.items())
    entries = tuple((anchor(PREFIX, "message", name), name) for name in found)
    return Section(anchor(PREFIX, "messages"), "Messages", body, entries)


def _message(name: str, message: Document, document: Document) -> Markup:
    payload = resolved(_node(message.get("payload")), document)
    shown = message.get("examples") or []
    return joined(
        [
            element("h3", str(message.get("name") or name), id=anchor(PREFIX, "message", name)),
            element("p", inline(message["title"])) if message.get("title") else None,
            prose(message.get("description") or payload.get("description")),
            element("p", "Content type: ", element("code", str(message["contentType"])), class_="meta")
            if "contentType" in message
            else None,
            element("h4", "Payload"),
            field_table(message.get("payload"), document),
            folded("Properties and headers", field_table(message["headers"], document, heading="name"))
            if "headers" in message
            else None,
            [
                example(
                    str(item.get("summary") or item.get("name") or number), item.get("payload"), unfolded=number == 0
                )
                for number, item in enumerate(shown)
            ],
            _binding(message),
        ]
    )
