"""Counts what has not ended, for the metrics: at the leading replica alone, or every replica would ask the same."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from service.domain.errors import TransientError
from service.domain.standing import Standing
from service.telemetry import Metrics

log = structlog.get_logger(__name__)
INTERVAL_S = 10.0


class StandingReader(Protocol):
    """How everything stands (see `postgres/overview.py`). DatabaseUnavailableError."""

    async def standing(self) -> Standing: ...


class Census:
    """Runs while this replica leads; what it read is shown until it ends, or until a look fails."""

    name = "census"

    def __init__(self, reader: StandingReader, metrics: Metrics, *, term: int, interval_s: float = INTERVAL_S) -> None:
        self._reader = reader
        self._metrics = metrics
        self._term = term
        self._interval_s = interval_s

    async def run(self) -> None:
        """Looks at an interval until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._interval_s)
        finally:
            self._metrics.show_standing(None)

    async def look(self) -> None:
        """Reads once; figures that could not be renewed are not shown any more."""
        try:
            self._metrics.show_standing(await self._reader.standing(), self._term)
        except TransientError as error:
            self._metrics.show_standing(None)
            log.warning("census.delayed", reason=str(error))

    async def drain(self) -> None:
        """Nothing is held here."""
