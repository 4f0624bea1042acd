"""The documents of `contracts/` by their paths there: what is written, and what differs from what was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import yaml

from service.contracts import asyncapi, openapi
from service.contracts.examples import examples
from service.contracts.schemas import Schema, message_schemas, standalone

# A document of one's own: its path, and the function that builds it as a JSON value.
DOCUMENTS: dict[str, Callable[[], object]] = {
    "asyncapi.yaml": asyncapi.document,
    "openapi.yaml": openapi.document,
}
# Folders that hold nothing but what is generated: a file there that is not is one too many.
GENERATED = ("schemas", "examples")


def schemas() -> dict[str, Schema]:
    """The schema of each message as a document, with its examples."""
    shown = examples().values()
    return {
        name: standalone(message, [example.body for example in shown if example.message == name])
        for name, message in message_schemas().items()
    }


def values() -> dict[str, object]:
    """Every document as a JSON value, by its path."""
    return {
        **{path: build() for path, build in DOCUMENTS.items()},
        **{f"schemas/{name}.json": schema for name, schema in schemas().items()},
        **{f"examples/{name}.json": example.body for name, example in examples().items()},
    }


def texts() -> dict[str, str]:
    """Every document as it is written."""
    return {path: render(path, value) for path, value in values().items()}


class Plain(yaml.SafeDumper):
    """Without anchors: what comes twice is written twice, as most readers of these documents want it."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        """Of everything."""
        return True


def render(path: str, value: object) -> str:
    """YAML or JSON, as the path's ending says; for people to read."""
    if PurePosixPath(path).suffix == ".yaml":
        # By the library's own code in Python: the one in C, where there is one, folds lines elsewhere.
        return yaml.dump(value, Dumper=Plain, sort_keys=False, allow_unicode=True, width=100)
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is to be told of each path that is missing, other than it should be, or one too many."""
    told = [f"{path}: is missing" for path in wanted if path not in found]
    told += [f"{path}: differs" for path, text in wanted.items() if path in found and found[path] != text]
    strays = (path for path in found if path not in wanted and path.partition("/")[0] in GENERATED)
    return sorted([*told, *(f"{path}: is generated from nothing any more" for path in strays)])
