"""What the HTTP API answers, as models: they describe what `service/http` writes, and the OpenAPI document is made from
them. Objects are open: a client ignores what it does not know."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field

from service.contracts.events import OPEN_ENUM, Data, Described, RequestId
from service.domain.errors import ErrorCode
from service.domain.states import RequestState

STATUSES = [state.value for state in RequestState]


class Generation(Data):
    """A request as it stands: the `data` of its events, and what only its row says."""

    status: str = Field(
        description="Where it stands; `partial`: it succeeded, and some outputs did not.",
        json_schema_extra={"enum": [*STATUSES, "partial"]},
    )
    sequence: int = Field(ge=1, description="Of its latest event.")
    num_generations: int = Field(ge=1, le=4, description="How many outputs were asked for.")
    target_namespace: str | None = Field(description="Who stores and pays; null: the key's own namespace.")
    priority: int = Field(ge=0, le=9, description="Higher goes first among the requests of one source.")
    deadline: AwareDatetime = Field(description="When it is ended if it has not ended by then.")
    source: str = Field(description="Who asked: the AMQP `user_id`, else `app_id`; `http` for this API.")


class GenerationPage(Described):
    """Requests, the newest first."""

    generations: list[Generation]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class Pending(Described):
    """The message is on the bus, confirmed, and not dealt with yet. What comes of it, the request's events tell."""

    request_id: RequestId
    status: str = Field(json_schema_extra={"const": "pending"})


class Model(Described):
    """An image or video model of the hub, in the hub's words."""

    model: str = Field(description="Its id: the `model` of a request.")
    name: str | None
    description: str | None
    outputs: list[str] = Field(description="What it makes; empty where the hub does not say.")
    pricing: dict[str, Any] | None = Field(description="As the hub has it.")


class ModelDetails(Model):
    """A model with the schema of its parameters."""

    input_schema: dict[str, Any] | bool | None = Field(
        description="The JSON Schema that `input` is judged by; null where the hub has none."
    )


class ModelList(Described):
    """Every model that makes images or videos."""

    models: list[Model]


class Health(Described):
    """Whether the process works."""

    status: str = Field(json_schema_extra={"enum": ["ok", "failing"]})
    reason: str | None = Field(description="What keeps failing; null when nothing does.")


class Readiness(Described):
    """Whether the replica takes requests, and what else an operator wants to know of it."""

    status: str = Field(json_schema_extra={"enum": ["ready", "not ready"]})
    reasons: dict[str, str] = Field(description="Why it does not: by part, in a sentence; empty when it does.")
    leading: bool = Field(description="Whether it holds the hub's stream.")
    publishing: str = Field(description="`open`, or why nothing can be published.")
    paused: list[Any] | dict[str, Any] = Field(description="Why nothing, or nothing of a namespace, is submitted.")


class Problem(Described):
    """RFC 9457. `code` and `details` are those that `generation.rejected` would carry."""

    type: str = Field(json_schema_extra={"const": "about:blank"})
    title: str = Field(description="The kind of problem; the wording may change.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What happened and what to do, for people.")
    code: str = Field("", json_schema_extra={OPEN_ENUM: [code.value for code in ErrorCode]})
    details: list[dict[str, Any]] = Field([], description="`path` and `message`, one for each fault.")


ANSWERS: tuple[type[Described], ...] = (
    *(Generation, GenerationPage, Pending, Model, ModelDetails, ModelList),
    *(Health, Readiness, Problem),
)
