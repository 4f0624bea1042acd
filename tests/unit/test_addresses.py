"""Which addresses a result may be fetched from: of the special ones none, however they are written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.submit.addresses import CLOSED_4, is_public

FOURS = st.ip_addresses(v=4)
SIXES = st.ip_addresses(v=6)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1"),  # noqa: S104
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fc00::1", "fd12::1", "fe80::1"),
        *("fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "2001::1", "2002:7f00:1::1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "100::1", "3fff::1", "5f00::1"),
        *("", "localhost", "example.org", "127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4/32", "[::1]"),
    ],
)
def test_what_only_this_machine_or_its_network_can_reach_is_closed(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "128.0.0.1", "169.253.255.255"),
        *("172.15.255.255", "172.32.0.0", "192.167.255.255", "223.255.255.255"),
        *("2606:4700::1", "2a00::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"),
    ],
)
def test_what_anybody_can_reach_is_open(address: str) -> None:
    assert is_public(address)


@given(FOURS)
def test_an_ipv4_address_is_judged_alike_in_whatever_it_is_wrapped(address: IPv4Address) -> None:
    verdict, number = is_public(str(address)), int(address)
    assert is_public(f"::ffff:{address}") is verdict
    assert is_public(str(IPv6Address((0x64FF9B << 96) | number))) is verdict
    assert is_public(str(IPv6Address((0x2002 << 112) | (number << 80) | 1))) is verdict


@given(FOURS | SIXES)
def test_nothing_that_python_knows_as_special_is_open(address: IPv4Address | IPv6Address) -> None:
    if is_public(str(address)):
        inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        nat64 = isinstance(inner, IPv6Address) and int(inner) >> 32 == 0x64FF9B << 64
        assert nat64 or not (inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_unspecified)
        assert not inner.is_multicast


@given(st.sampled_from(CLOSED_4), st.data())
def test_no_address_of_a_closed_network_is_open(network: object, data: st.DataObject) -> None:
    first, last = int(network[0]), int(network[-1])  # type: ignore[index]
    assert not is_public(str(ip_address(data.draw(st.integers(first, last)))))


@given(st.text(max_size=60))
def test_text_is_never_an_error(text: str) -> None:
    assert is_public(text) in (True, False)
