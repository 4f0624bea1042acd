"""Who may use the API: bearer tokens where there are any, else a loopback host only; and no page elsewhere, ever.

Pure: a request's headers in, a refusal or None out. A browser on the operator's machine can be made to call a loopback
address by any page it shows: it then names that page in Origin, or, after DNS rebinding, another Host.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status with what to do about it; `code` and `details` are those of a message that intake would reject."""

    status: int
    title: str
    detail: str
    code: str | None = None
    details: tuple[Mapping[str, object], ...] = ()


def refusal(method: str, headers: Mapping[str, str], *, tokens: Collection[str], listens_on: str) -> Refusal | None:
    """Why a call of `/v1` or the page is refused; None when it is not."""
    if method not in SAFE_METHODS and (refused := _cross_site(headers)) is not None:
        return refused
    if tokens:
        return None if _carries(headers, tokens) else _unauthorized()
    if is_loopback(listens_on) and is_loopback(_host_of(headers.get("Host", ""))):
        return None
    return Refusal(
        403,
        "No tokens are set",
        "Without DROVER_API_TOKENS the API answers on a loopback host only; set tokens, or call it as 127.0.0.1.",
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cross_site(headers: Mapping[str, str]) -> Refusal | None:
    """A call that changes something: from a browser only with its own origin."""
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        return Refusal(403, "Another origin", "A page of another origin may not change anything here.")
    if origin is None and headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return Refusal(403, "Another site", "A page of another site may not change anything here.")
    return None


def _carries(headers: Mapping[str, str], tokens: Collection[str]) -> bool:
    """Compares with every token in a time that does not depend on where they differ."""
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    presented = given.strip().encode()
    found = [hmac.compare_digest(presented, token.encode()) for token in tokens]
    return scheme.lower() == "bearer" and any(found)


def _unauthorized() -> Refusal:
    return Refusal(401, "No valid token", "Send `Authorization: Bearer TOKEN` with one of DROVER_API_TOKENS.")


def _host_of(host_header: str) -> str:
    """The host of a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:  # brackets that do not match
        return ""
