"""Request ids as arguments."""

from __future__ import annotations

from service.domain.errors import ConfigurationError
from service.wire.envelope import REQUEST_ID


def valid_id(given: str, name: str = "REQUEST_ID") -> str:
    """The id. ConfigurationError for what cannot be one."""
    if not REQUEST_ID.fullmatch(given):
        raise ConfigurationError(f"{name} must be 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
    return given
