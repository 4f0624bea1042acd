"""`drover` that says all it could: its log at DEBUG, and a defect that meets one request and quotes it.

For `python -m tests.support.talkative serve`, by the tests that look for what must not be said.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from service.cli import main, serve
from service.postgres.store import RequestStore
from service.telemetry import configure_logging

BREAKS = "breaks"
_insert = RequestStore.insert


async def _broken(self: RequestStore, accepted: Any, now: Any) -> Any:  # noqa: ANN401 - passed on
    """As a library's error would, it shows what it stumbled over."""
    for new, event in accepted:
        if new.request.request_id == BREAKS:
            raise ValueError(f"cannot store {new!r}, {event!r}")
    return await _insert(self, accepted, now)


if __name__ == "__main__":
    setattr(RequestStore, "insert", _broken)  # noqa: B010 - of a type of its own
    setattr(serve, "configure_logging", partial(configure_logging, level=logging.DEBUG))  # noqa: B010
    main()
