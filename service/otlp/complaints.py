"""What the OpenTelemetry SDK has to say, as lines of the service's own log: rarely, and without addresses or keys."""

from __future__ import annotations

import logging
import time

import structlog

log = structlog.get_logger(__name__)
LOGGER = "opentelemetry"
WORDED = "opentelemetry.exporter.otlp.proto.http.trace_exporter"  # its words are a status and its phrase
AGAIN_S = 60.0
LONGEST = 200


class Complaints(logging.Handler):
    """Each kind of complaint once a minute: of a collector that is away there is one for every batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Called in whichever thread complains."""
        kind, now = str(record.msg), time.monotonic()
        if now - self._told.get(kind, -AGAIN_S) < AGAIN_S:
            return
        self._told[kind] = now
        log.warning("traces.impaired", reason=told(record))


def told(record: logging.LogRecord) -> str:
    """The complaint in words. An exception may quote the collector's URL, a text a header's value: neither is told."""
    given = record.args if isinstance(record.args, tuple) else ()
    words = tuple(_plain(word, worded=record.name == WORDED) for word in given)
    try:
        text = str(record.msg) % words if words else str(record.msg)
    except (TypeError, ValueError):
        text = str(record.msg)
    if record.exc_info and record.exc_info[0] is not None:
        text += f" ({record.exc_info[0].__name__})"
    return text[:LONGEST]


def _plain(word: object, *, worded: bool) -> object:
    if word is None or isinstance(word, int | float) or (worded and isinstance(word, str)):
        return word
    return type(word).__name__ if isinstance(word, BaseException) else "..."


def hush() -> None:
    """What is given up for good is told once, by who gives it up."""
    logging.getLogger(LOGGER).setLevel(logging.CRITICAL)


def listen() -> None:
    """From here on the SDK speaks through our log alone."""
    logger = logging.getLogger(LOGGER)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    if not any(isinstance(handler, Complaints) for handler in logger.handlers):
        logger.addHandler(Complaints())
