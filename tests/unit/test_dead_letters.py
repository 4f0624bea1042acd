"""A message in quarantine: nothing of it is lost, nothing in it passes for what drover or the broker says about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from service.cli.letters import request_id_of
from service.domain.messages import Message
from service.rabbit.dead_letters import DeadLetter, put_away, read_dead_letter, readable, replay_of
from service.rabbit.fields import Entry, encode_array, encode_table, encode_text, read_table, read_value
from service.rabbit.properties import Encoded, Properties, Verbatim, encoded_of, tolerate_odd_properties
from service.rabbit.topology import CANCEL_KEY, CANCELS, REQUEST_KEY, REQUESTS
from tests.support.odd import encoded_properties, header_lists

NOW = datetime(2030, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
ROOM = 131_000
tolerate_odd_properties()


def over_the_wire(properties: Properties) -> dict[str, bytes]:
    """What the other side receives."""
    raw, received = properties.marshal(), Properties()
    received.unmarshal(int.from_bytes(raw[:2], "big"), raw[2:])
    return encoded_of(received)


def a_message(properties: Encoded | None = None, **fields: str) -> Message:
    """As the consumer reads it."""
    origin = {"queue": REQUESTS, "exchange": "generation.commands", "routing_key": REQUEST_KEY, **fields}
    return Message(b"\x00body", source="team", properties=tuple((properties or {}).items()), **origin)  # type: ignore[arg-type]  # texts


def dead(message: Message, reason: str = "invalid_message", room: int = ROOM) -> DeadLetter:
    """The letter that comes of a message."""
    return read_dead_letter(message.body, over_the_wire(put_away(message, reason, "0123456789ab", NOW, room)))


def died(
    queue: str = REQUESTS, reason: str = "delivery_limit", key: str = REQUEST_KEY, more: Encoded | None = None
) -> bytes:
    """One element of the broker's `x-death`."""
    facts = {
        "count": b"l" + (1).to_bytes(8, "big"),
        "exchange": encode_text("generation.commands"),
        "queue": encode_text(queue),
        "reason": encode_text(reason),
        "routing-keys": encode_array([encode_text(key), encode_text("a CC")]),
        "time": b"T" + int(NOW.timestamp()).to_bytes(8, "big"),
        **(more or {}),
    }
    return b"F" + encode_table([(name.encode(), value) for name, value in facts.items()])


def headers(*entries: Entry) -> bytes:
    """A table of headers."""
    return encode_table(entries)


def deaths(*elements: bytes) -> Entry:
    """The broker's record, newest first."""
    return b"x-death", encode_array(elements)


def sent_headers(properties: Verbatim) -> dict[str, object]:
    """What a consumer of a replayed message reads."""
    return {name.decode(): read_value(value) for name, value in read_table(over_the_wire(properties)["headers"])}


# -- there and back ---------------------------------------------------------------------------------------------------


@given(encoded_properties, st.binary(max_size=50))
def test_whatever_its_properties_are_a_message_comes_back_as_it_came(properties: dict[str, bytes], body: bytes) -> None:
    letter = dead(replace(a_message(properties), body=body))
    key, replayed = replay_of(letter)
    expected = {name: value for name, value in properties.items() if name not in ("expiration", "delivery_mode")}
    if expected.get("headers") == encode_table([]):
        del expected["headers"]
    assert (letter.body, key) == (body, REQUEST_KEY)
    assert {**over_the_wire(replayed)} == {**expected, "delivery_mode": b"\x02"}
    readable(letter)


@given(encoded_properties)
def test_what_it_says_about_itself_is_never_taken_for_what_drover_says(properties: dict[str, bytes]) -> None:
    letter = dead(a_message(properties), "idempotency_conflict")
    assert (letter.letter_id, letter.reason, letter.source) == ("0123456789ab", "idempotency_conflict", "team")
    assert (letter.queue, letter.exchange, letter.routing_key) == (REQUESTS, "generation.commands", REQUEST_KEY)
    assert letter.died_at == NOW
    assert not letter.left_out


@pytest.mark.parametrize(
    ("queue", "routing_key", "back"),
    [
        (REQUESTS, REQUEST_KEY, REQUEST_KEY),
        (CANCELS, CANCEL_KEY, CANCEL_KEY),
        (CANCELS, "a key that a CC header went beside", CANCEL_KEY),
        ("", CANCEL_KEY, CANCEL_KEY),
        ("", "", REQUEST_KEY),
    ],
)
def test_a_message_goes_back_to_the_queue_it_was_taken_from(queue: str, routing_key: str, back: str) -> None:
    assert replay_of(dead(a_message(queue=queue, routing_key=routing_key)))[0] == back


def test_the_user_that_the_broker_had_checked_goes_back_as_the_application() -> None:
    message = replace(a_message({"user_id": b"\x05alice", "app_id": b"\x03app"}), source="alice")
    letter = dead(message)
    assert readable(letter)[0] == {"user_id": "alice", "app_id": "app", "delivery_mode": 2}
    assert over_the_wire(replay_of(letter)[1]) == {"app_id": b"\x05alice", "delivery_mode": b"\x02"}


def test_an_expiration_neither_ends_the_quarantine_nor_the_replay_but_is_told() -> None:
    letter = dead(a_message({"expiration": b"\x041000"}))
    assert "expiration" not in over_the_wire(put_away(a_message({"expiration": b"\x041000"}), "x", "i", NOW, ROOM))
    assert readable(letter)[0]["expiration"] == "1000"
    assert "expiration" not in over_the_wire(replay_of(letter)[1])


def test_a_replay_goes_to_one_queue_alone_whatever_copies_were_asked_for() -> None:
    own = headers((b"CC", encode_array([encode_text(CANCEL_KEY)])), (b"shot", encode_text("7")))
    assert sent_headers(replay_of(dead(a_message({"headers": own})))[1]) == {"shot": "7"}


def test_a_count_of_deliveries_is_the_brokers_and_stays_behind() -> None:
    own = headers((b"x-delivery-count", b"l" + (3).to_bytes(8, "big")))
    assert "headers" not in over_the_wire(replay_of(dead(a_message({"headers": own})))[1])


def test_a_trace_can_be_read_beside_the_reason() -> None:
    message = replace(a_message(), traceparent="00-a-b-01", tracestate="k=v")
    found = sent_headers(put_away(message, "internal", "0123456789ab", NOW, ROOM))
    assert (found["traceparent"], found["tracestate"], found["x-drover-reason"]) == ("00-a-b-01", "k=v", "internal")


def test_headers_that_leave_no_room_in_the_frame_are_left_out_and_that_is_said() -> None:
    own = headers((b"large", encode_text("x" * 1000)))
    properties = put_away(a_message({"headers": own, "message_id": b"\x01m"}), "internal", "0123456789ab", NOW, 900)
    assert len(properties.marshal()) <= 900
    letter = read_dead_letter(b"", over_the_wire(properties))
    assert letter.left_out
    assert (letter.headers, letter.reason, readable(letter)[0]["message_id"]) == ((), "internal", "m")


def test_a_message_that_did_not_come_over_the_bus_keeps_what_is_known_of_it() -> None:
    letter = dead(Message(b"{}", "text/plain", "m", "c", "inbox", "team"))
    expected = {"content_type": "text/plain", "message_id": "m", "correlation_id": "c", "reply_to": "inbox"}
    assert readable(letter)[0] == {**expected, "delivery_mode": 2}


# -- what the broker put away -----------------------------------------------------------------------------------------


def by_broker(*entries: Entry, body: bytes = b"{}", **properties: bytes) -> DeadLetter:
    """A letter that is there because nobody acknowledged it."""
    return read_dead_letter(body, {**properties, "headers": headers(*entries)}, REQUEST_KEY)


def test_a_message_that_was_returned_too_often_tells_the_brokers_reason() -> None:
    letter = by_broker(deaths(died()), user_id=b"\x05alice")
    assert (letter.reason, letter.source, letter.queue) == ("delivery_limit", "alice", REQUESTS)
    assert (letter.exchange, letter.routing_key) == ("generation.commands", REQUEST_KEY)
    assert letter.died_at == NOW.replace(microsecond=0)
    assert replay_of(by_broker(deaths(died(CANCELS, key=CANCEL_KEY))))[0] == CANCEL_KEY


def test_a_publisher_cannot_forge_what_the_broker_or_drover_says() -> None:
    forged = [
        (name.encode(), encode_text("forged")) for name in ("x-drover-reason", "x-drover-id", "x-first-death-reason")
    ]
    letter = by_broker(*forged, deaths(died(), died("forged", "forged")))
    assert letter.reason == "delivery_limit"
    assert letter.letter_id != "forged"
    assert set(sent_headers(replay_of(letter)[1])) == {
        "x-drover-reason",
        "x-drover-id",
        "x-first-death-reason",
        "x-death",
    }
    own = headers(deaths(died(CANCELS, "forged")))
    assert dead(a_message({"headers": own})).reason == "invalid_message"


def test_what_the_broker_wrote_stays_behind_and_what_other_queues_wrote_goes_along() -> None:
    ours = [
        (f"x-{when}-death-{what}".encode(), encode_text(REQUESTS))
        for when in ("first", "last")
        for what in ("queue", "reason", "exchange")
    ]
    plain = by_broker(*ours, deaths(died()), (b"x-delivery-count", b"l" + bytes(8)), (b"shot", encode_text("7")))
    assert sent_headers(replay_of(plain)[1]) == {"shot": "7"}
    theirs = (b"x-first-death-queue", encode_text("theirs"))
    found = sent_headers(replay_of(by_broker(theirs, deaths(died(), died("theirs", "expired"))))[1])
    assert found["x-first-death-queue"] == "theirs"
    assert isinstance(found["x-death"], list)
    assert [death["queue"] for death in found["x-death"]] == ["theirs"]


def test_an_expiration_that_the_broker_took_off_is_told() -> None:
    letter = by_broker(deaths(died(more={"original-expiration": encode_text("1000")})))
    assert readable(letter)[0]["expiration"] == "1000"


def test_the_same_letter_has_the_same_id_however_often_it_is_delivered() -> None:
    first, again = (
        by_broker(deaths(died()), (b"x-delivery-count", b"l" + count.to_bytes(8, "big"))) for count in (1, 2)
    )
    assert first.letter_id == again.letter_id
    others: Sequence[DeadLetter] = [
        by_broker(deaths(died()), body=b"other"),
        by_broker(deaths(died()), message_id=b"\x01m"),
        by_broker(deaths(died(reason="rejected"))),
    ]
    assert len({first.letter_id, *(other.letter_id for other in others)}) == 4


# -- what somebody else put there -------------------------------------------------------------------------------------


def test_a_letter_without_a_word_about_itself_has_an_id_and_an_unknown_reason() -> None:
    letter = read_dead_letter(b"{}", {"app_id": b"\x04team"}, CANCEL_KEY)
    assert (letter.reason, letter.source, letter.queue, letter.died_at) == ("unknown", "team", CANCELS, None)
    assert len(letter.letter_id) == 12


def test_a_reason_alone_is_taken_at_its_word() -> None:
    letter = read_dead_letter(b"{}", {"headers": headers((b"x-drover-reason", encode_text("internal")))})
    assert (letter.reason, letter.source, letter.queue) == ("internal", "anonymous", REQUESTS)


@given(st.binary(max_size=80), st.binary(max_size=20))
def test_no_headers_are_too_broken_to_be_read(raw: bytes, body: bytes) -> None:
    letter = read_dead_letter(body, {"headers": raw})
    readable(letter)
    replay_of(letter)


@given(header_lists, st.lists(st.binary(max_size=30), max_size=3))
def test_no_record_of_deaths_is_too_broken_to_be_read(entries: list[Entry], broken: list[bytes]) -> None:
    for record in (b"A" + b"".join(broken), encode_array([b"F" + encode_table([(b"queue", encode_text(REQUESTS))])])):
        letter = read_dead_letter(b"", {"headers": encode_table([*entries, (b"x-death", record)])})
        readable(letter)
        replay_of(letter)


# -- the request it is about ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "properties", "request_id"),
    [
        (b'{"request_id": "r-1"}', {}, "r-1"),
        (b'{"specversion": "1.0", "data": {"request_id": "r-2"}}', {}, "r-2"),
        (b"not JSON", {"message_id": b"\x03r-3"}, "r-3"),
        (b"not JSON", {"message_id": b"\x02\xff\xfe"}, None),
        (b'{"request_id": "not usable"}', {}, None),
        (b"", {}, None),
    ],
)
def test_the_request_is_named_where_it_can_be(body: bytes, properties: Encoded, request_id: str | None) -> None:
    assert request_id_of(read_dead_letter(body, properties)) == request_id
