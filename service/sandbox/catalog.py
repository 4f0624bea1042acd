"""The sandbox's models: what the models endpoint shows, and how parameters are judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import jsonschema_rs

from service.sandbox.commission import Commission, MediaType, ParametersError, commission
from service.sandbox.schemas import MODEL_OBJECTS, Json

_MEDIA: Final[dict[str, MediaType]] = {"/videos/generate": "video", "/images/generate": "image"}
_FAILURE_MARK: Final = "[fail]"


class Model:
    """One model. `media_type` is None for a model that makes neither images nor video."""

    def __init__(self, description: Json) -> None:
        schema = description["json_request_schema"]
        # The hub's reference calls the schema `request_schema`, its model pages `json_request_schema`.
        self.object: Json = {**description, "request_schema": schema}
        self.id: str = description["id"]
        self.media_type = _MEDIA.get(description["endpoint"])
        self._validator = jsonschema_rs.validator_for(schema, validate_formats=True)

    def judge(self, parameters: Mapping[str, Any]) -> Commission:
        """What to render for these parameters, or ParametersError with everything that is wrong with them.

        The hub judges late: this is asked for at the end of a generation, never at its POST. A prompt that contains
        `[fail]` is the documented way to have a generation fail on demand.
        """
        errors = [_complaint(error) for error in self._validator.iter_errors(parameters)]
        if errors:
            raise ParametersError("; ".join(errors))
        if _FAILURE_MARK in parameters["prompt"]:
            raise ParametersError(f"The prompt asks for a failure: it contains {_FAILURE_MARK}")
        return commission(self.id, parameters)


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(part) for part in error.instance_path)
    return f"{path}: {error.message}" if path else error.message


class Catalog:
    """All models by id."""

    def __init__(self, descriptions: Iterable[Json] = MODEL_OBJECTS) -> None:
        self._models = {description["id"]: Model(description) for description in descriptions}

    def get(self, model_id: object) -> Model | None:
        """The model of that id, if there is one."""
        return self._models.get(model_id) if isinstance(model_id, str) else None

    def search(self, words: str = "") -> list[Json]:
        """The model objects whose id, name or description contains `words`; all of them for an empty string."""
        wanted = words.casefold()
        return [model.object for model in self._models.values() if wanted in _searched(model.object)]


def _searched(description: Json) -> str:
    return " ".join(description[key] for key in ("id", "display_name", "description")).casefold()
