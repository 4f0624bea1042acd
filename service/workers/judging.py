"""What a model's schema makes of a request, for all who take requests in."""

from __future__ import annotations

import asyncio

import structlog
from msgspec.structs import replace

from service.domain.errors import HubUnavailableError
from service.domain.messages import Identified, NewRequest, Unidentified
from service.domain.states import Fault
from service.wire.model_schema import ModelSchema
from service.workers.catalogue import Catalogue

log = structlog.get_logger(__name__)


def unknown_model(catalogue: Catalogue, read: Identified | Unidentified) -> str | None:
    """The model that the hub has to be asked for before the message can be judged."""
    if isinstance(read, Unidentified) or read.accepted is None:
        return None
    model = read.accepted.request.model
    return model if catalogue.known(model) is None else None


async def look_up(catalogue: Catalogue, model: str, timeout_s: float) -> None:
    """Asks for a model; when that cannot be done now, it is left unknown."""
    try:
        async with asyncio.timeout(timeout_s):
            await catalogue.look_up(model)
    except (HubUnavailableError, TimeoutError) as error:
        log.warning("model.not_looked_up", model=model, reason=str(error) or "the look-up timed out")


def judged(catalogue: Catalogue, read: Identified | Unidentified) -> Identified | Unidentified:
    """With the hub away and nothing remembered of the model it stays unchecked until it is submitted."""
    if isinstance(read, Unidentified) or read.accepted is None:
        return read
    new = read.accepted
    match catalogue.known(new.request.model):
        case None:
            return read
        case Fault() as fault:
            return replace(read, accepted=None, fault=fault)
        case ModelSchema() as schema:
            faults = schema.fault(new.input)
            if faults is not None:
                return replace(read, accepted=None, fault=faults)
            return replace(read, accepted=_with_seed(new, schema))


def _with_seed(new: NewRequest, schema: ModelSchema) -> NewRequest:
    """Checked, and with a seed of ours where the requester gave none and the model takes one."""
    seed = schema.choose_seed(new.input, new.request.num_generations)
    if seed is None:
        return replace(new, input_checked=True)
    return replace(new, request=replace(new.request, seed=seed), seed_chosen=True, input_checked=True)
