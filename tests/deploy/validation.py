"""Rendered objects against the schemas of Kubernetes and of the custom resources; no cluster is asked."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonschema_rs
import kubernetes_validate  # type: ignore[import-untyped]  # has no py.typed

from tests.deploy.manifests import Object, title

OLDEST, NEWEST = "1.30", "1.37"  # the oldest knows `preStop.sleep`; the newest is what the schemas know
KNOWN = kubernetes_validate.latest_version().rpartition(".")[0]
CRDS = Path(__file__).parent / "crds"


def is_custom(thing: Object) -> bool:
    """Whether its kind is none of Kubernetes' own."""
    return (CRDS / f"{thing['kind']}.json").exists()


@functools.cache
def _schema_of(kind: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads((CRDS / f"{kind}.json").read_text("utf-8")))


def schema_faults(objects: Sequence[Object], version: str) -> Iterator[str]:
    """What a Kubernetes of that version would not take, unknown fields and kinds included."""
    for thing in objects:
        if is_custom(thing):
            for error in _schema_of(thing["kind"]).iter_errors(thing):
                yield f"{title(thing)}: {'.'.join(map(str, error.instance_path))}: {error.message}"
        else:
            yield from _built_in_faults(thing, version)


def _built_in_faults(thing: Object, version: str) -> Iterator[str]:
    try:
        judged_by = kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{title(thing)}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:  # the command only warns
        yield f"{title(thing)}: {error.message}"
    else:
        if judged_by != version:
            yield f"{title(thing)}: judged by Kubernetes {judged_by}, not {version}"
