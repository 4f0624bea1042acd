"""Result files: where they lie, how many may lie there, and the presigned URLs that lead to them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

PREFIX: Final = "/results/"


class SignatureError(Exception):
    """The URL was not signed by this process, was changed, or has expired."""


class Results:
    """Files in a temporary directory of their own. Beyond `max_bytes` the oldest are removed."""

    def __init__(self, *, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._directory: Path | None = None
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def path(self, name: str) -> Path:
        """Where a file of that name is to be written; the directory is made when first asked for."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="drover-sandbox-"))
        return self._directory / name

    def keep(self, path: Path) -> None:
        """Take a finished file in, and let the oldest go until all fit (the newest always stays)."""
        self._sizes[path.name] = path.stat().st_size
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self._max_bytes:
            name, _ = self._sizes.popitem(last=False)
            self.path(name).unlink(missing_ok=True)

    def find(self, name: str) -> Path | None:
        """The file of that name, if it was kept and has not been evicted."""
        return self.path(name) if name in self._sizes else None

    def sign(self, name: str) -> str:
        """Path and query of a URL that is good for `ttl_s` from now."""
        path = PREFIX + name
        expires = f"{self._clock() + self._ttl_s:.3f}"
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def verify(self, path: str, query: Mapping[str, str]) -> None:
        """Raise SignatureError unless path and query are those of a signed URL that has not expired."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if not hmac.compare_digest(signature.encode(), self._signature(path, expires).encode()):
            raise SignatureError("The signature does not match")
        if self._clock() >= float(expires):
            raise SignatureError("The URL has expired")

    def remove(self) -> None:
        """Delete everything."""
        self._sizes.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
