"""The sandbox's models: what the models endpoint shows, and how parameters are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

from service.sandbox.commission import READERS, Commission, MediaType, ParametersError, Reader
from service.sandbox.models import OFFERS
from service.sandbox.schemas import MODEL_OBJECTS, Json

_MEDIA: Final[dict[str, MediaType]] = {"/videos/generate": "video", "/images/generate": "image"}
_FAILURE_MARK: Final = "[fail]"


class Model:
    """One model. `media_type` is None for a model that makes neither images nor video.

    `rules` is what the model really takes, where its published schema does not say it in JSON Schema's own words.
    """

    def __init__(self, description: Json, read: Reader | None, rules: Json | None = None) -> None:
        schema = description["json_request_schema"]
        # The hub's reference calls the schema `request_schema`, its model pages `json_request_schema`.
        self.object: Json = {**description, "request_schema": schema}
        self.id: str = description["id"]
        self.media_type = _MEDIA.get(description["endpoint"])
        self._read = read
        self._validator = jsonschema_rs.validator_for(
            schema if rules is None else rules, validate_formats=True, offline=True
        )

    def judge(self, parameters: Mapping[str, Any]) -> Commission:
        """What to render for these parameters, or ParametersError with everything that is wrong with them.

        The hub judges late: this is asked for at the end of a generation, never at its POST. A prompt that contains
        `[fail]` is the documented way to have a generation fail on demand.
        """
        errors = [_complaint(error) for error in self._validator.iter_errors(parameters)]
        if errors or self._read is None:
            raise ParametersError("; ".join(errors) or "This model makes no files")
        if _FAILURE_MARK in str(parameters.get("prompt", "")):
            raise ParametersError(f"The prompt asks for a failure: it contains {_FAILURE_MARK}")
        return self._read(parameters)


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(part) for part in error.instance_path)
    return f"{path}: {error.message}" if path else error.message


class Catalog:
    """All models by id."""

    def __init__(self) -> None:
        first = (Model(description, READERS.get(description["id"])) for description in MODEL_OBJECTS)
        others = (Model(offer.description, offer.read, offer.rules) for offer in OFFERS)
        self._models = {model.id: model for model in (*first, *others)}

    def get(self, model_id: object) -> Model | None:
        """The model of that id, if there is one."""
        return self._models.get(model_id) if isinstance(model_id, str) else None

    def search(self, words: str = "") -> list[Json]:
        """The model objects whose id, name or description contains `words`; all of them for an empty string."""
        wanted = words.casefold()
        return [model.object for model in self._models.values() if wanted in _searched(model.object)]


def _searched(description: Json) -> str:
    return " ".join(description[key] for key in ("id", "display_name", "description")).casefold()
