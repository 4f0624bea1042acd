"""What went wrong with a TLS connection, and what mends it; and the certificate files that a URL names."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

OTHER_NAME = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
NOT_YET_VALID, EXPIRED = 9, 10


class TlsFault(StrEnum):
    """What is at fault, in words."""

    UNTRUSTED = "its certificate comes from a CA that is not trusted here"
    OTHER_HOST = "its certificate is for another host name"
    DATE = "its certificate has expired, or is not valid yet"
    NO_TLS = "what answers at this port does not speak TLS"
    CLIENT = "it wants a client certificate, of a CA that it trusts"
    FILE = "a certificate file could be read, and does not hold what it should"
    OTHER = "TLS failed"


@dataclass(frozen=True, slots=True)
class TlsNames:
    """What a person has to set: the variable with the URL, and the parameters in it."""

    url: str
    authority: str
    client: tuple[str, str]
    others: tuple[str, ...] = ()

    def remedy(self, fault: TlsFault) -> str:
        """What to do, as the second half of a sentence."""
        match fault:
            case TlsFault.UNTRUSTED:
                return f"name the file of its CA as {self.authority}= in {self.url}"
            case TlsFault.OTHER_HOST:
                return f"use a name of the certificate in {self.url}, or give the server a certificate for this name"
            case TlsFault.DATE:
                return "renew the server's certificate, or set this machine's clock"
            case TlsFault.NO_TLS:
                return f"mend the port of {self.url}, or switch TLS on at the server"
            case TlsFault.CLIENT:
                return f"name certificate and key as {self.client[0]}= and {self.client[1]}= in {self.url}"
            case TlsFault.FILE:
                return (
                    f"mend what {', '.join(self._files)} of {self.url} name: PEM files, the key that of the certificate"
                )
            case TlsFault.OTHER:
                return "look into the server's log; both sides must share a version of TLS"

    def unreadable(self, url: str) -> str | None:
        """Which of the files that a URL names cannot be read, and why; the libraries tell the reason alone."""
        query = parse_qs(urlsplit(url).query)
        for name in self._files:
            for value in query.get(name, ()):
                try:
                    with Path(value).open("rb"):
                        continue
                except (OSError, ValueError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "it is no path"
                    return f"The file that {name}= of {self.url} names cannot be read: {reason}."
        return None

    @property
    def _files(self) -> tuple[str, ...]:
        return (self.authority, *self.client, *self.others)


def tls_fault(error: BaseException | None) -> TlsFault | None:
    """Of an error, or of what caused it; None when it is not about TLS."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause.verify_code)
        if isinstance(cause, ssl.SSLError):
            return _of_handshake(cause.reason or str(cause))
        if isinstance(cause, ConnectionError) and "SSL upgrade" in str(cause):  # asyncpg's own words
            return TlsFault.NO_TLS
    return None


def _of_certificate(code: int) -> TlsFault:
    if code in OTHER_NAME:
        return TlsFault.OTHER_HOST
    return TlsFault.DATE if code in (NOT_YET_VALID, EXPIRED) else TlsFault.UNTRUSTED


def _of_handshake(reason: str) -> TlsFault:
    if _any(reason, ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF")):
        return TlsFault.NO_TLS
    if _any(reason, ("ALERT_CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "HANDSHAKE_FAILURE")):
        return TlsFault.CLIENT
    if _any(reason, ("NO_CERTIFICATE", "NO_START_LINE", "KEY_VALUES_MISMATCH", "PEM", "BAD_PASSWORD")):
        return TlsFault.FILE
    return TlsFault.OTHER


def _any(text: str, words: Iterable[str]) -> bool:
    return any(word in text for word in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1
