"""A cancel from the bus: `{"request_id": ...}`, bare or in a CloudEvents envelope."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.domain.messages import Cancel, Message
from service.domain.states import Fault
from service.wire.envelope import REQUEST_ID, from_pydantic, read_document


class CancelBody(BaseModel):
    """The body of a `generation.cancel` message. Its `message_id` is its own, and names no request."""

    model_config = ConfigDict(strict=True, extra="forbid")

    request_id: str = Field(pattern=rf"\A(?:{REQUEST_ID.pattern})\z", description="The request that is to end.")


def read_cancel(message: Message) -> Cancel | Fault:
    """Reads one delivery. Never raises: what is wrong comes back as a fault."""
    data, _, problem = read_document(message)
    if problem is not None:
        return problem
    try:
        body = CancelBody.model_validate(data)
    except ValidationError as error:
        return from_pydantic("The cancel is not valid.", error)
    return Cancel(body.request_id, message.correlation_id, message.reply_to)
