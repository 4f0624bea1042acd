"""Lists read in pieces: the same as read whole, never complete when torn, and bounded in every direction."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.matching import Sighting
from service.domain.upstream import Listing
from service.hub.lists import ListError, ListingReader, ListParser, SightingsReader

MODEL = "ltx-2-3-quality-text-to-video"


def read(pieces: Sequence[bytes], parser: ListParser | None = None) -> tuple[object, object, list[object]]:
    """(count, error, generations) of a list that comes in these pieces."""
    parser = parser or ListParser()
    items = [item for piece in pieces for item in parser.feed(piece)]
    items += parser.close()
    assert parser.seen == len(items)
    return parser.count, parser.error, items


def listing(document: object, *asked: str) -> Listing:
    reader = ListingReader(asked)
    reader.feed(json.dumps(document).encode())
    return reader.close()


def shown(generation_id: str, **fields: object) -> dict[str, object]:
    return {"generation_id": generation_id, "model_name": MODEL, "status": "processing", **fields}


# -- pieces -----------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
documents = st.builds(
    lambda before, listed, after: {**before, "generations": listed, **after},
    st.dictionaries(st.sampled_from(["count", "error", "next", "\u00e9"]), values, max_size=3),
    st.lists(values, max_size=6),
    st.dictionaries(st.sampled_from(["Count", "paging", "status"]), values, max_size=2),
)
texts = st.builds(
    lambda document, indent, ascii_only: json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    ),
    documents,
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
cuts = st.lists(st.floats(0, 1), max_size=20)
JSON_SIGNS = [*'{}[]:,"\\ 0123.eE+-ntfu\n', '"generations":', '"count":', "[]", "{}", "é"]


def pieces_of(body: bytes, where: Sequence[float]) -> list[bytes]:
    at = [0, *sorted(int(share * len(body)) for share in where), len(body)]
    return [body[start:end] for start, end in pairwise(at)]


def told(outcome: object) -> str:
    """Comparable also where NaN is in it."""
    return repr(outcome)


@given(texts, cuts)
def test_any_list_in_any_pieces_is_read_as_it_is_read_whole(body: bytes, where: list[float]) -> None:
    document = json.loads(body)
    whole = document.get("count"), document.get("error"), document["generations"]
    assert told(read(pieces_of(body, where))) == told(whole)
    assert told(read([bytes([byte]) for byte in body])) == told(whole)


@given(texts, st.floats(0, 1), cuts)
def test_a_list_that_is_torn_anywhere_is_never_taken_for_a_whole_one(
    body: bytes, torn_at: float, where: list[float]
) -> None:
    torn = body[: int(torn_at * len(body))]
    with pytest.raises(ListError):
        read(pieces_of(torn if torn != body else body[:-1], where))


@given(texts, st.lists(st.tuples(st.floats(0, 1), st.sampled_from(JSON_SIGNS), st.booleans()), max_size=3), cuts)
@example(b'{"generations":[1.]}', [], [])
@example(b'{"generations":[1.5e]}', [], [0.85])
@example(b'{"generations":[{}]}{}', [], [])
@example(b'{"generations":[{},]}', [], [])
@example(b'{"generations":[],}', [], [])
@example(b'{"generations":[1],"generations":[2]}', [], [])
@example(b'{"generations":[{} {}]}', [], [])
@example(b'{1:2,"generations":[]}', [], [])
@example(b'{"generations":[]}\x00', [], [])
@example(b'\xef\xbb\xbf{"generations":[]}', [], [])
@example(b'{"generations":["\xff"]}', [], [])
@example(b'{"generations":["\xc3', [], [])
@example(b'{"generations":[NaN,-Infinity]}', [], [0.5])
def test_whatever_else_comes_is_read_as_it_is_read_whole_or_refused(
    body: bytes, changes: list[tuple[float, str, bool]], where: list[float]
) -> None:
    for share, sign, replaces in changes:
        at = int(share * len(body))
        body = body[:at] + sign.encode() + body[at + replaces :]
    try:
        outcome = told(read(pieces_of(body, where)))
    except ListError:
        outcome = "refused"
    assert outcome == _read_whole(body)


def _read_whole(body: bytes) -> str:
    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in members]
        return {**dict(members), "twice": keys.count("generations") > 1}

    try:
        document = json.loads(body.decode(), object_pairs_hook=once)
        plain = json.loads(body.decode())
    except ValueError:
        return "refused"
    if not isinstance(plain, dict) or not isinstance(plain.get("generations"), list) or document["twice"]:
        return "refused"
    return told((plain.get("count"), plain.get("error"), plain["generations"]))


def test_after_an_error_the_list_stays_unread() -> None:
    parser = ListParser()
    with pytest.raises(ListError):
        parser.feed(b'{"generations":[]} nonsense')
    with pytest.raises(ListError):
        parser.close()


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("place", ['{"generations":[%s]}', '{"next":%s,"generations":[]}', '{"%s":1,"generations":[]}'])
def test_one_thing_in_a_list_has_its_longest_length(place: str, step: int) -> None:
    def body(length: int) -> list[bytes]:
        filling = "x" * (length - 2) if '"%s"' in place else '"' + "x" * (length - 2) + '"'
        whole = (place % filling).encode()
        return [whole[at : at + step] for at in range(0, len(whole), step)]

    read(body(500), ListParser(max_item_chars=500))
    with pytest.raises(ListError, match="500 characters"):
        read(body(501), ListParser(max_item_chars=500))


def test_a_list_has_its_longest_length() -> None:
    body = b'{"generations":[]}'
    read([body], ListParser(max_bytes=len(body)))
    with pytest.raises(ListError, match="17 bytes"):
        read([body], ListParser(max_bytes=len(body) - 1))


def test_what_never_becomes_json_is_given_up_early() -> None:
    page = (b"<p>" for _ in range(1000))
    with pytest.raises(ListError, match="1000 characters, or is not JSON"):
        read([b'{"generations":[', *page], ListParser(max_item_chars=1000))


@pytest.mark.parametrize("depth", [900, 1100, 100_000])
def test_a_list_that_is_nested_too_deep_is_refused_not_crashed_on(depth: int) -> None:
    body = b'{"generations":[' + b"[" * depth + b"]" * depth + b"]}"
    if depth < 1000:
        read([body])
    else:
        with pytest.raises(ListError):
            read([body])


def test_the_work_grows_with_the_list_and_not_with_the_number_of_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = ListParser()
    tried = 0
    decode = parser._decoder.raw_decode

    def counted(text: str, at: int = 0) -> tuple[Any, int]:
        nonlocal tried
        tried += len(text) - at
        return decode(text, at)

    monkeypatch.setattr(parser._decoder, "raw_decode", counted)
    body = json.dumps({"generations": [{"prompt": "x" * 100_000}]}).encode()
    read([bytes([byte]) for byte in body], parser)
    assert tried < 4 * len(body)


def test_memory_does_not_grow_with_the_list() -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"generations":['
        for number in range(5000):
            yield json.dumps(shown(f"g{number}", prompt="x" * 1000)).encode() + b","
        yield b'{"generation_id":"last","model_name":"m"}]}'

    reader = SightingsReader(lambda sighting: sighting.generation_id in {"g17", "last"})
    tracemalloc.start()
    try:
        for piece in pieces():
            reader.feed(piece)
        sightings = reader.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [sighting.generation_id for sighting in sightings.sightings] == ["g17", "last"]
    assert peak < 200_000  # of 5 MB


# -- what is drawn from them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "asked", "answer"),
    [
        ({"count": 0, "generations": []}, "", Listing((), complete=True)),
        ({"generations": []}, "ab", Listing(("a", "b"), complete=True)),
        ({"count": 1, "generations": [shown("a")]}, "bac", Listing(("b", "c"), complete=True)),
        ({"count": 2, "generations": [shown("a")]}, "a", Listing((), complete=False)),
        ({"generations": [shown("a")], "count": 2}, "a", Listing((), complete=False)),
        ({"count": 0, "generations": [shown("a")]}, "a", Listing((), complete=True)),
        ({"count": "2", "generations": [shown("a"), shown("a")]}, "ab", Listing(("b",), complete=True)),
        ({"count": 3, "generations": [{"generation_id": "a"}, {"id": 1}, None]}, "a", Listing((), complete=True)),
        ({"generations": [{"generation_id": ["a"]}, shown("a", status=["b"])]}, "a", Listing((), complete=True)),
        ({"generations": [], "error": {"message": "busy"}}, "a", Listing(("a",), complete=False)),
    ],
)
def test_a_listing_names_what_it_lacks_and_is_complete_unless_it_says_that_it_left_some_out(
    document: object, asked: str, answer: Listing
) -> None:
    assert listing(document, *asked) == answer


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_generation_that_is_shown_as_ended_is_not_shown_as_active(status: str) -> None:
    assert listing({"generations": [shown("a", status=status), shown("b")]}, "a", "b").missing == ("a",)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"generations":null}', b'{"generations":{}}', b"null", b" "]
)
def test_what_has_no_list_is_no_list_and_proves_nothing(body: bytes) -> None:
    with pytest.raises(ListError):
        read([body])


def test_a_sighting_has_its_parameters_and_its_time() -> None:
    reader = SightingsReader(lambda sighting: sighting.model == MODEL)
    fields = {"generation_id": "a", "model_name": MODEL, "prompt": "p", "seed": 2**63 + 1, "enqueued_at": 1_790_000_000}
    reader.feed(json.dumps({"generations": [fields, {**fields, "model_name": "other"}]}).encode())
    answer = reader.close()
    assert answer.complete
    assert answer.sightings == (Sighting("a", MODEL, fields, datetime.fromtimestamp(1_790_000_000, UTC)),)


@pytest.mark.parametrize(
    "item",
    [
        None,
        {},
        {"generation_id": "a"},
        {"model_name": "m"},
        {"generation_id": 1, "model_name": "m"},
        {"generation_id": "\ud800", "model_name": "m"},
    ],
)
def test_a_generation_that_cannot_be_told_apart_leaves_the_sightings_incomplete(item: object) -> None:
    reader = SightingsReader(lambda _: True)
    reader.feed(json.dumps({"generations": [item]}).encode())
    answer = reader.close()
    assert answer.sightings == ()
    assert not answer.complete


keys = st.sampled_from(["generation_id", "model_name", "model", "status", "enqueued_at", "prompt", "seed"])


@given(st.lists(values | st.dictionaries(keys, values | st.just("queued"), max_size=6), max_size=4))
def test_no_generation_makes_a_reader_raise(items: list[object]) -> None:
    body = json.dumps({"generations": items}).encode()
    readers = ListingReader([]), SightingsReader(lambda _: True)
    for reader in readers:
        reader.feed(body)
        reader.close()
