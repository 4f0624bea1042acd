"""Completions that nobody heard: told before the ids were stored, or while no stream was open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog

from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.facts import OutputReported
from service.telemetry import Metrics
from service.workers.ports import Hub, Store
from service.workers.settler import Settler

log = structlog.get_logger(__name__)


class Gap:
    """Closes gaps by asking for single generations, a bounded number at a time."""

    def __init__(self, store: Store, hub: Hub, settler: Settler, metrics: Metrics, *, concurrency: int = 16) -> None:
        self._store = store
        self._hub = hub
        self._settler = settler
        self._metrics = metrics
        self._concurrency = asyncio.Semaphore(concurrency)

    async def close_for(self, begun: Mapping[str, datetime]) -> None:
        """For generations just stored, by when their attempt began: applies what the stream said too early, and asks
        for those whose attempt began before the stream's present opening, once."""
        if not begun:
            return
        opened_at, heard = await self._store.heard_of(list(begun))
        if heard:
            await self._settler.settle_reports(heard)
        told = {report.generation_id for report in heard}
        if opened_at is not None:
            unheard = [key for key, began in begun.items() if began < opened_at and key not in told]
            await self.fetch(unheard)

    async def fetch(self, generation_ids: Iterable[str]) -> list[OutputReported | None]:
        """Asks for each and applies the answers. What cannot be asked now is left to the next sweep."""
        answers = await asyncio.gather(*map(self._ask, generation_ids))
        await self._settler.settle_reports([answer for answer in answers if answer is not None])
        return answers

    async def _ask(self, generation_id: str) -> OutputReported | None:
        async with self._concurrency:
            try:
                answer = await self._hub.generation(generation_id)
            except (HubUnavailableError, HubRefusedKeyError) as error:
                log.warning("generation.not_fetched", generation_id=generation_id, reason=str(error))
                return None
        self._metrics.fetched.inc()
        if answer is None:
            log.warning("generation.unknown_to_hub", generation_id=generation_id)
        return answer
