"""What the hub offers, for who wants to choose a model: asked once a minute at the most, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from service.domain.errors import HubRefusedKeyError, HubUnavailableError
from service.domain.upstream import ModelOffer
from service.workers.catalogue import GENERATED

FRESH_S = 60.0


class ModelList(Protocol):
    """The hub's list (see `hub/client.py`). HubUnavailableError, HubRefusedKeyError."""

    async def models(self) -> Sequence[ModelOffer]: ...


class Showroom:
    """The models that make images or videos."""

    def __init__(self, hub: ModelList) -> None:
        self._hub = hub
        self._offers: Sequence[ModelOffer] = ()
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()

    async def offers(self) -> Sequence[ModelOffer]:
        """All of them; those of the last time while the hub cannot be asked. HubUnavailableError, HubRefusedKeyError
        when there was no last time."""
        async with self._asking:
            if time.monotonic() >= self._fresh_until:
                await self._ask()
            return self._offers

    async def offer(self, model: str) -> ModelOffer | None:
        """One of them; None when the hub offers no such model. Raises as `offers` does."""
        return next((offer for offer in await self.offers() if offer.model == model), None)

    async def _ask(self) -> None:
        try:
            told = await self._hub.models()
        except (HubUnavailableError, HubRefusedKeyError):
            if not self._offers:
                raise
            return
        self._offers = [offer for offer in told if not offer.outputs or GENERATED.intersection(offer.outputs)]
        self._fresh_until = time.monotonic() + FRESH_S
