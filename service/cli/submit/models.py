"""What is known of a model here: from the hub where there is a key, else built in for the default model."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from service.domain.errors import ConfigurationError, HubRefusedKeyError, HubUnavailableError
from service.domain.states import Fault
from service.hub.client import HubClient
from service.settings import load_settings
from service.wire.builtin_models import BUILTIN_SCHEMAS
from service.wire.model_schema import BrokenSchemaError, ModelSchema

ASK_TIMEOUT_S = 5.0
GENERATED = frozenset({"image", "video"})
NO_KEY = "without OXEN_API_KEY the hub cannot be asked"


class KnownModel(Struct, frozen=True):
    """A model and its schema; None when it is not known, for a `reason`. `origin` says who told."""

    name: str
    schema: Mapping[str, Any] | None
    origin: str
    reason: str = ""

    def judge(self, parameters: Mapping[str, object]) -> Fault | None:
        """What the schema finds wrong; nothing when there is none, or none that can be used."""
        try:
            return ModelSchema.compile(self.name, self.schema).fault(parameters)
        except BrokenSchemaError:
            return None


def look_up(model: str) -> KnownModel:
    """Asks the hub, within five seconds. ConfigurationError when it says that it has no such model to generate with."""
    try:
        settings = load_settings()
    except ConfigurationError:
        return _stand_in(model, NO_KEY)
    base_url, key = settings.base_url.get_secret_value(), settings.api_key.get_secret_value()

    async def ask() -> KnownModel:
        hub = HubClient(base_url, key, connections=1, submit_timeout_s=ASK_TIMEOUT_S)
        await hub.open()
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                described = await hub.model(model)
                meant = await _similar(hub, model) if described is None else ""
        except TimeoutError:
            return _stand_in(model, f"the hub did not answer within {ASK_TIMEOUT_S:g} s")
        except (HubUnavailableError, HubRefusedKeyError) as error:
            return _stand_in(model, str(error).removesuffix("."))
        finally:
            await hub.close()
        if described is None:
            raise ConfigurationError(f"The hub has no model {model!r}.{meant}")
        if described.outputs and not GENERATED.intersection(described.outputs):
            raise ConfigurationError(f"The model {model!r} makes neither images nor videos.")
        schema = described.schema if isinstance(described.schema, Mapping) else None
        return KnownModel(model, schema, "the hub", "" if schema else "the hub tells none")

    return asyncio.run(ask())


async def _similar(hub: HubClient, model: str) -> str:
    names = [offer.model for offer in await hub.models() if not offer.outputs or GENERATED.intersection(offer.outputs)]
    close = difflib.get_close_matches(model, names, 3, 0.4)
    return f" Did you mean {' or '.join(close)}?" if close else f" It has {', '.join(names[:10])}."


def _stand_in(model: str, reason: str) -> KnownModel:
    return KnownModel(model, BUILTIN_SCHEMAS.get(model), "built in", reason)
