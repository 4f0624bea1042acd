"""Writes the schemas beside it, as NOTICE.md says. Needs the two packages named there, in an environment of their own:

python derive.py
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

MODELS = {
    "cloudcoil.models.keda.v1alpha1": ("keda.sh/v1alpha1", ("ScaledObject", "TriggerAuthentication")),
    "cloudcoil.models.prometheus_operator.v1": ("monitoring.coreos.com/v1", ("ServiceMonitor", "PrometheusRule")),
}
SAID_ELSEWHERE = {"title", "default", "description"}
OF_NAMES = {"properties", "$defs"}  # what stands in them are names, not keywords


def strict(node: Any, within: str = "") -> Any:  # noqa: ANN401 - JSON
    """Without what only people read, and with every object closed that names its properties."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    if within in OF_NAMES:
        return {name: strict(each) for name, each in node.items()}
    kept = {keyword: strict(each, keyword) for keyword, each in node.items() if keyword not in SAID_ELSEWHERE}
    if "anyOf" in kept:
        kept["anyOf"] = [each for each in kept["anyOf"] if each != {"type": "null"}]
        if len(kept["anyOf"]) == 1:
            kept |= kept.pop("anyOf")[0]
    if kept.get("type") == "object" and "properties" in kept:
        kept.setdefault("additionalProperties", False)
    return kept


def main() -> None:
    for module, (version, names) in MODELS.items():
        for name in names:
            schema = strict(getattr(importlib.import_module(module), name).model_json_schema(by_alias=True))
            schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
            schema["properties"] |= {"apiVersion": {"const": version}, "kind": {"const": name}}
            schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
            text = json.dumps(schema, indent=1, sort_keys=True) + "\n"
            Path(__file__).with_name(f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
