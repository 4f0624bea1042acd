"""Which addresses a result may be fetched from: public ones. Pure: an address in, a verdict out.

A URL comes from the hub, over the bus: whoever can make one up must not be able to make this machine call what only it
can reach (its own services, a cloud's metadata at 169.254.169.254, the network behind it).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# IANA's registries of special-purpose addresses (RFC 6890 and after), and multicast. Written out, since Python's own
# list differs from version to version.
CLOSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; on Linux, this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local; metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast
        ),
    )
)
OPEN_6 = IPv6Network("2000::/3")  # all of it that is public; neither ::1, fc00::/7, fe80::/10 nor ff00::/8
CLOSED_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
MAPPED, NAT64, SIX_TO_FOUR = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")


def is_public(address: str) -> bool:
    """Whether anybody could reach it; False for what is no address. An IPv4 address inside an IPv6 one is judged."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(parsed) if isinstance(parsed, IPv4Address) else _is_public_6(parsed)


def _is_public_4(address: IPv4Address) -> bool:
    return not any(address in network for network in CLOSED_4)


def _is_public_6(address: IPv6Address) -> bool:
    inner = _within(IPv6Address(int(address)))  # without its zone
    if inner is not None:
        return _is_public_4(inner)
    return address in OPEN_6 and not any(address in network for network in CLOSED_6)


def _within(address: IPv6Address) -> IPv4Address | None:
    if address in MAPPED or address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF) if address in SIX_TO_FOUR else None
