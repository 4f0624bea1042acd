"""Message properties as no client library writes them and every broker delivers them, for property-based tests."""

from __future__ import annotations

from hypothesis import strategies as st

from service.rabbit.fields import Entry, encode_array, encode_table, encode_text

_short = st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=30)).map(lambda raw: raw[:255])
_values = st.recursive(
    st.one_of(
        st.text(max_size=20).map(encode_text),
        st.binary(max_size=20).map(encode_text),
        st.binary(max_size=20).map(lambda raw: b"x" + len(raw).to_bytes(4, "big") + raw),
        st.binary(min_size=8, max_size=8).map(lambda raw: b"T" + raw),
        st.binary(min_size=8, max_size=8).map(lambda raw: b"l" + raw),
        st.binary(min_size=4, max_size=4).map(lambda raw: b"I" + raw),
        st.binary(min_size=2, max_size=2).map(lambda raw: b"s" + raw),
        st.binary(min_size=1, max_size=1).map(lambda raw: b"b" + raw),
        st.sampled_from([b"t\x00", b"t\x01", b"V", b"d" + bytes(8), b"f" + bytes(4), b"D\x02\x00\x00\x01\x00"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(encode_array),
        st.lists(st.tuples(_short, inner), max_size=3).map(lambda items: b"F" + encode_table(items)),
    ),
    max_leaves=6,
)
# Names whose values the broker itself reads or writes are left to tests of their own.
_names = st.one_of(
    _short.filter(lambda name: name not in (b"CC", b"BCC", b"x-death", b"x-delivery-count", b"x-acquired-count")),
    st.sampled_from([b"x-drover-reason", b"x-drover-id", b"x-drover-headers", b"traceparent", b"x-drover-queue"]),
)
header_lists: st.SearchStrategy[list[Entry]] = st.lists(
    st.tuples(_names, _values), max_size=5, unique_by=lambda entry: entry[0]
)


def _shortstr(raw: bytes) -> bytes:
    return bytes((len(raw),)) + raw


_octet = st.integers(0, 255).map(lambda value: bytes((value,)))
encoded_properties: st.SearchStrategy[dict[str, bytes]] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("content_type", "content_encoding", "correlation_id", "reply_to"), _short.map(_shortstr)),
        **dict.fromkeys(("message_id", "message_type", "app_id", "cluster_id"), _short.map(_shortstr)),
        "headers": header_lists.map(encode_table),
        "priority": _octet,
        "delivery_mode": st.sampled_from([b"\x01", b"\x02"]),
        "timestamp": st.binary(min_size=8, max_size=8),
        "expiration": st.integers(3_600_000, 10**9).map(lambda value: _shortstr(str(value).encode())),
    },
)
