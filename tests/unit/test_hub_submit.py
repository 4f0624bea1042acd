"""What each answer to the paid POST means: only what is surely a refusal or an acceptance is one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.errors import ErrorCode
from service.domain.facts import HubAccepted, HubRefused, NotSent, OutcomeUnknown, SubmitOutcome
from service.domain.gate import Healthy, Held, Limited, Reason, Signal, Unclear
from service.hub.answers import read_signal, read_submit
from tests.unit.builders import NOW

ONE = b'{"generations":[{"generation_id":"g-1","status":"queued"}]}'
FULL_ERROR = b'{"error":{"type":"invalid_params","title":"Bad","detail":"num"},"status":"error","status_message":"x"}'
SHORT_ERROR = b'{"error":{"message":"no such model"}}'
EMPTY_WITH_ERROR = b'{"generations":[],"error":{"type":"unknown_error","title":"Out of stock"}}'
EMPTY_UNAUTHENTICATED = b'{"generations":[],"error":{"type":"unauthenticated","title":"Who are you?"}}'
PAGE = b"<html>502 Bad Gateway</html>"


def submitted(status: int, body: bytes = b"", retry_after: str | None = None) -> SubmitOutcome:
    return read_submit(status, body, retry_after, NOW)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_ids_mean_accepted(status: int) -> None:
    body = b'{"generations":[{"generation_id":"b"},{"generation_id":"a","status":"queued"}]}'
    assert submitted(status, body) == HubAccepted(("b", "a"))


def test_ids_count_even_beside_an_error() -> None:
    body = b'{"generations":[{"generation_id":"a"}],"error":{"message":"one of two"}}'
    assert submitted(200, body) == HubAccepted(("a",))


def test_an_id_that_comes_twice_counts_once() -> None:
    body = b'{"generations":[{"generation_id":"a"},{"generation_id":"a"}]}'
    assert submitted(200, body) == HubAccepted(("a",))


TABLE = [
    # status, body, outcome
    *[(status, body, HubRefused) for status in (400, 404, 415, 422) for body in (FULL_ERROR, SHORT_ERROR)],
    *[(status, body, OutcomeUnknown) for status in (400, 415, 422) for body in (PAGE, b"", b"{}", b"[]", ONE)],
    *[(404, body, NotSent) for body in (PAGE, b"", b"{}", b'{"error":"not found"}')],
    *[(status, body, NotSent) for status in (401, 402, 403, 429) for body in (PAGE, b"", FULL_ERROR, ONE)],
    *[(status, body, OutcomeUnknown) for status in (500, 502, 503, 504, 599) for body in (PAGE, FULL_ERROR, ONE)],
    *[(status, ONE, OutcomeUnknown) for status in (100, 301, 302, 304, 307, 308)],
    *[(status, body, OutcomeUnknown) for status in (405, 408, 409, 410, 413, 418) for body in (ONE, FULL_ERROR)],
    *[(200, body, OutcomeUnknown) for body in (PAGE, b"", b"{}", b"null", b'{"generations":[]}', ONE[:-2])],
    (204, b"", OutcomeUnknown),
    (200, b'{"generations":{"generation_id":"a"}}', OutcomeUnknown),
    (200, b'{"generations":[{"generation_id":""},{"generation_id":7},{"id":"a"},"a",null]}', OutcomeUnknown),
    (200, json.dumps({"generations": [{"generation_id": "x" * 201}]}).encode(), OutcomeUnknown),
    (200, b'{"generations":[{"generation_id":"a\\u0000"}]}', OutcomeUnknown),
    (200, EMPTY_WITH_ERROR, HubRefused),
    (200, SHORT_ERROR, HubRefused),
    (200, EMPTY_UNAUTHENTICATED, NotSent),
]


@pytest.mark.parametrize(("status", "body", "outcome"), TABLE)
def test_each_answer_has_its_meaning(status: int, body: bytes, outcome: type) -> None:
    assert type(submitted(status, body)) is outcome


@pytest.mark.parametrize(
    ("body", "text", "details"),
    [
        (FULL_ERROR, "Bad: num", ({"type": "invalid_params"},)),
        (SHORT_ERROR, "no such model", ()),
        (b'{"error":{"type":"invalid_params"}}', "invalid_params", ({"type": "invalid_params"},)),
        (b'{"error":{"title":"Same","detail":"Same"}}', "Same", ()),
        (b'{"error":{"title":"","detail":7,"message":"told"}}', "told", ()),
    ],
)
def test_a_refusal_carries_the_hubs_own_words(body: bytes, text: str, details: tuple[dict[str, str], ...]) -> None:
    outcome = submitted(400, body)
    assert isinstance(outcome, HubRefused)
    assert outcome.fault.code is ErrorCode.UPSTREAM_REJECTED
    assert outcome.fault.message == f"The hub refused the request: {text}"
    assert outcome.fault.details == details


@pytest.mark.parametrize(
    ("status", "body", "remedy"),
    [
        (401, b"", "OXEN_API_KEY"),
        (402, b"", "credits"),
        (403, b"", "namespace"),
        (404, PAGE, "OXEN_BASE_URL"),
        (200, EMPTY_UNAUTHENTICATED, "OXEN_API_KEY"),
    ],
)
def test_what_is_not_the_requests_fault_waits_and_says_what_to_mend(status: int, body: bytes, remedy: str) -> None:
    outcome = submitted(status, body)
    assert isinstance(outcome, NotSent)
    assert remedy in outcome.reason
    assert outcome.retry_at > NOW


# -- what it says of the hub ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "retry_after", "signal"),
    [
        (200, ONE, None, Healthy()),
        (200, EMPTY_WITH_ERROR, None, Healthy()),
        (200, EMPTY_UNAUTHENTICATED, None, Held(Reason.UNAUTHENTICATED)),
        (200, PAGE, None, Unclear()),
        (400, FULL_ERROR, None, Healthy()),
        (401, b"", None, Held(Reason.UNAUTHENTICATED)),
        (402, PAGE, None, Held(Reason.UNPAID)),
        (403, FULL_ERROR, None, Held(Reason.FORBIDDEN)),
        (404, SHORT_ERROR, None, Healthy()),
        (404, PAGE, None, Held(Reason.FOREIGN)),
        (422, PAGE, None, Unclear()),
        (429, b"", None, Limited()),
        (429, b"", "0", Limited(0.0)),
        (429, b"", "Thu, 31 Jan 2030 12:00:30 GMT", Limited(30.0)),
        (429, b"", "soon", Limited()),
        (502, PAGE, None, Unclear()),
        (503, PAGE, "120", Unclear(120.0)),
        (503, PAGE, "soon", Unclear()),
    ],
)
def test_each_answer_also_says_how_the_hub_is(
    status: int, body: bytes, retry_after: str | None, signal: Signal
) -> None:
    assert read_signal(status, submitted(status, body, retry_after), retry_after, NOW) == signal


# -- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 1),
        ("", 1),
        ("0", 0),
        ("1", 1),
        ("120", 120),
        ("3600", 3600),
        ("86400", 3600),
        ("9" * 400, 3600),
        ("9" * 5000, 3600),
        ("Thu, 31 Jan 2030 12:00:30 GMT", 30),
        ("Thursday, 31-Jan-30 12:00:30 GMT", 30),
        ("Thu Jan 31 12:00:30 2030", 30),
        ("Thu, 31 Jan 2030 13:00:30 +0100", 30),
        ("Thu, 31 Jan 2030 12:00:30 -0000", 30),
        ("Thu, 31 Jan 2030 11:00:00 GMT", 0),
        ("Fri, 31 Jan 2031 12:00:00 GMT", 3600),
        ("soon", 1),
        ("1.5", 1),
        ("-5", 1),
        ("Thu, 31 Jan 2030 12:00:00 +9999999999999999999999", 1),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_retry_after_is_honoured_within_an_hour(value: str | None, seconds: int) -> None:
    outcome = submitted(429, b"", value)
    assert isinstance(outcome, NotSent)
    assert outcome.retry_at == NOW + timedelta(seconds=seconds)


def test_a_date_without_a_zone_is_in_utc_wherever_the_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        outcome = submitted(429, b"", "Thu Jan 31 12:00:30 2030")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert isinstance(outcome, NotSent)
    assert outcome.retry_at == NOW + timedelta(seconds=30)


@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,30} [A-Z][a-z]{2} \d{1,9} \d+:\d+:\d+ [+-]?\w*", fullmatch=True)
)
@example("Mon, 01 Jan 2026 00:00:00 +" + "9" * 30)
@example(" ")
def test_no_retry_after_makes_reading_raise_or_wait_longer_than_an_hour(value: str) -> None:
    outcome = submitted(429, b"", value)
    assert isinstance(outcome, NotSent)
    assert NOW <= outcome.retry_at <= NOW + timedelta(hours=1)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["generations", "generation_id", "error", "type", "title", "message", "status"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(100, 599), anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_no_answer_makes_reading_raise_and_no_5xx_is_ever_judged(status: int, body: bytes) -> None:
    outcome = submitted(status, body)
    if status >= 500:
        assert isinstance(outcome, OutcomeUnknown)
    if isinstance(outcome, HubAccepted):
        assert 200 <= status < 300
        assert all(outcome.generation_ids)


def test_bottomless_nesting_is_an_unknown_outcome() -> None:
    assert isinstance(submitted(200, b"[" * 100_000), OutcomeUnknown)


def test_the_present_moment_may_stand_in_any_zone() -> None:
    there = datetime(2030, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    outcome = read_submit(429, b"", "Thu, 31 Jan 2030 12:00:30 GMT", there)
    assert isinstance(outcome, NotSent)
    assert outcome.retry_at.astimezone(UTC) == NOW + timedelta(seconds=30)
