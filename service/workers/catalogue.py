"""The models' schemas: asked of the hub, kept, refreshed, and for the first model built in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from service.domain.errors import ErrorCode, HubRefusedKeyError, HubUnavailableError
from service.domain.pricing import Price, price_of
from service.domain.states import Fault
from service.domain.upstream import ModelDescription
from service.wire.model_schema import BrokenSchemaError, ModelSchema
from service.workers.ports import Hub

log = structlog.get_logger(__name__)
GENERATED = frozenset({"image", "video"})
UNJUDGED = "its inputs go to the hub unjudged, and without a seed of ours"
MAX_MODELS = 1000  # a bound on what misspelt names can make us remember


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a model: its schema, or why it cannot be used, and its price; `fresh_until` is monotonic."""

    verdict: ModelSchema | Fault
    fresh_until: float
    price: Price | None = None


class Catalogue:
    """`known` answers at once from memory; `look_up` asks the hub."""

    name = "catalogue"

    def __init__(
        self,
        hub: Hub,
        builtin: Mapping[str, Mapping[str, object]],
        *,
        fresh_s: float = 600,
        unknown_fresh_s: float = 30,
        refresh_interval_s: float = 30,
    ) -> None:
        self._hub = hub
        self._builtin = builtin
        self._fresh_s = fresh_s
        self._unknown_fresh_s = unknown_fresh_s
        self._refresh_interval_s = refresh_interval_s
        self._entries: dict[str, Entry] = {}
        self._unpriced: set[str] = set()
        self._asking: dict[str, asyncio.Task[ModelSchema | Fault]] = {}

    def known(self, model: str) -> ModelSchema | Fault | None:
        """What memory says; None when the hub has to be asked first. A usable schema stays usable while stale."""
        entry = self._entries.get(model)
        if entry is None:
            return None
        if isinstance(entry.verdict, Fault) and time.monotonic() > entry.fresh_until:
            return None  # the model may exist by now
        return entry.verdict

    async def look_up(self, model: str) -> ModelSchema | Fault:
        """Asks the hub, once for all who ask at the same time. HubUnavailableError when it cannot be asked and nothing
        is built in or remembered."""
        task = self._asking.get(model)
        if task is None:
            task = self._asking[model] = asyncio.create_task(self._ask(model))
            task.add_done_callback(lambda _: self._asking.pop(model, None))
        return await asyncio.shield(task)

    async def _ask(self, model: str) -> ModelSchema | Fault:
        try:
            described = await self._hub.model(model)
        except (HubUnavailableError, HubRefusedKeyError) as error:
            return self._stand_in(model, error)
        verdict = _judge(model, described)
        fresh_s = self._unknown_fresh_s if isinstance(verdict, Fault) else self._fresh_s
        if len(self._entries) >= MAX_MODELS:
            self._entries.pop(next(iter(self._entries)))
        price = price_of(described.pricing, described.schema) if described is not None else None
        self._entries[model] = Entry(verdict, time.monotonic() + fresh_s, price)
        return verdict

    def price(self, model: str, parameters: Mapping[str, object]) -> float | None:
        """Dollars for one generation by the list price, as far as that can be told; a model that another replica has
        judged is asked for soon."""
        entry = self._entries.get(model)
        if entry is None:
            if len(self._unpriced) < MAX_MODELS:
                self._unpriced.add(model)
            return None
        return None if entry.price is None else entry.price.of(parameters)

    def _stand_in(self, model: str, error: Exception) -> ModelSchema | Fault:
        remembered = self._entries.get(model)
        if remembered is not None and isinstance(remembered.verdict, ModelSchema):
            return remembered.verdict
        if model in self._builtin:
            log.warning("model.built_in_schema_used", model=model, reason=str(error))
            schema = ModelSchema.compile(model, self._builtin[model])
            self._entries[model] = Entry(schema, time.monotonic())  # stale from the start: refreshed when possible
            return schema
        raise HubUnavailableError(f"The schema of the model {model!r} cannot be asked for now: {error}") from error

    async def run(self) -> None:
        """Looks the built-in models up at the start, and refreshes what is stale, until cancelled."""
        for model in self._builtin:
            await self.look_up(model)
        while True:
            await asyncio.sleep(self._refresh_interval_s)
            for model, entry in list(self._entries.items()):
                if isinstance(entry.verdict, ModelSchema) and time.monotonic() > entry.fresh_until:
                    await self.look_up(model)
            for model in list(self._unpriced):
                with suppress(HubUnavailableError):  # tried again at the next interval
                    await self.look_up(model)
                    self._unpriced.discard(model)

    async def drain(self) -> None:
        """Nothing is held here."""


def _judge(model: str, described: ModelDescription | None) -> ModelSchema | Fault:
    if described is None:
        return Fault(ErrorCode.UNKNOWN_MODEL, f"The hub has no model {model!r}.")
    if described.outputs and not GENERATED.intersection(described.outputs):
        return Fault(ErrorCode.UNKNOWN_MODEL, f"The model {model!r} makes neither images nor videos.")
    try:
        schema = ModelSchema.compile(model, described.schema)
        reason = "the hub gives no schema, or one that says nothing"
    except BrokenSchemaError as error:
        # Not the requester's fault, and the hub judges parameters itself: better late than never.
        schema, reason = ModelSchema.compile(model, None), str(error)
    if schema.validator is None:
        log.warning("model.unjudged", model=model, reason=reason, effect=UNJUDGED)
    return schema
