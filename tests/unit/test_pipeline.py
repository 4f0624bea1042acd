"""The frames of a publish: what pamqp, which reads them here, would write itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header

from service.rabbit.pipeline import Outgoing, _frames, header_of

SHORT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
MESSAGES = st.builds(
    Outgoing,
    exchange=st.just("generation.events"),
    routing_key=st.sampled_from(["generation.accepted", "generation.succeeded"]),
    body=st.binary(max_size=300),
    mandatory=st.booleans(),
    message_id=SHORT,
    message_type=SHORT,
    content_type=SHORT,
    correlation_id=st.none() | SHORT,
    headers=st.dictionaries(st.sampled_from(["traceparent", "tracestate"]), SHORT),
)


def read_back(raw: bytes) -> list[Any]:
    """Every frame in it."""
    frames = []
    while raw:
        size, channel, found = frame.unmarshal(raw)
        assert channel == 7
        frames.append(found)
        raw = raw[size:]
    return frames


@given(MESSAGES, st.sampled_from([16, 100, 131_064]))
def test_a_message_is_read_back_as_it_was_given(message: Outgoing, room: int) -> None:
    channel = cast("Any", SimpleNamespace(number=7, max_content_size=room))
    publish, head, *bodies = read_back(_frames(channel, message))
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (
        message.exchange,
        message.routing_key,
        message.mandatory,
    )
    assert isinstance(head, header.ContentHeader)
    assert head.body_size == len(message.body)
    properties = head.properties
    assert (properties.message_id, properties.message_type) == (message.message_id, message.message_type)
    assert (properties.content_type, properties.delivery_mode) == (message.content_type, 2)
    assert (properties.correlation_id, properties.headers or {}) == (message.correlation_id, message.headers)
    assert b"".join(body.value for body in bodies) == message.body
    assert all(len(body.value) <= room for body in bodies)


@given(MESSAGES)
def test_the_header_is_the_one_that_pamqp_writes(message: Outgoing) -> None:
    properties = commands.Basic.Properties(
        content_type=message.content_type,
        headers=dict(message.headers) or None,
        delivery_mode=2,
        correlation_id=message.correlation_id,
        message_id=message.message_id,
        message_type=message.message_type,
    )
    assert header_of(message) == header.ContentHeader(body_size=len(message.body), properties=properties).marshal()


def test_a_property_that_amqp_has_no_room_for_is_an_error_of_its_own() -> None:
    with pytest.raises(ValueError, match="256"):
        header_of(Outgoing("", "", b"", False, "x" * 256, "t", "c"))
