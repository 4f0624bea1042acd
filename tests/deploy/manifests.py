"""Rendered manifests: what `kubectl kustomize` makes of a folder, and how rules look into it."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.local import kubectl

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("overlays/sandbox", "overlays/production", "overlays/production-keda")
Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@functools.cache
def _rendered(folder: Path) -> list[Object]:
    program = kubectl.program()
    assert program is not None, "no kubectl: run `python3 deploy/local/install.py tools`"
    argv = [str(program), "kustomize", str(folder)]
    env = {**os.environ, "KUBECONFIG": os.devnull}  # no cluster of anybody's
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr  # a warning is a fault, too
    return list(yaml.safe_load_all(done.stdout))


def render(folder: str | Path) -> list[Object]:
    """The objects of a folder of deploy/kubernetes, or of any other; the caller's own to change."""
    return copy.deepcopy(_rendered(FOLDER / folder))


def at(thing: Any, path: str, default: Any = None) -> Any:  # noqa: ANN401 - what YAML may hold
    """What stands at a dotted path, numbers being places in lists; the default where nothing does."""
    for step in path.split("."):
        if isinstance(thing, Mapping) and step in thing:
            thing = thing[step]
        elif isinstance(thing, Sequence) and not isinstance(thing, str) and step.isdigit() and int(step) < len(thing):
            thing = thing[int(step)]
        else:
            return default
    return thing


def title(thing: Object) -> str:
    """`Deployment/drover`; the tag that a Job's name ends with is left out."""
    name = str(at(thing, "metadata.name"))
    return f"{thing['kind']}/{'drover-migrate' if name.startswith('drover-migrate') else name}"


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, as policies write it, takes these labels. An empty one takes everything."""
    if selector is None or set(selector) - {"matchLabels"}:
        return False
    return (selector.get("matchLabels") or {}).items() <= labels.items()


@dataclass(frozen=True, slots=True)
class Pods:
    """What a workload makes its pods of."""

    workload: str
    spec: Object
    labels: Mapping[str, str]

    @property
    def containers(self) -> list[Object]:
        """All of them, those that only begin the pod included."""
        return [*(self.spec.get("initContainers") or []), *self.spec["containers"]]


@dataclass(frozen=True, slots=True)
class Rendering:
    """All objects of one overlay."""

    objects: Sequence[Object]

    def of(self, *kinds: str) -> Iterator[Object]:
        """The objects of these kinds."""
        return (thing for thing in self.objects if thing["kind"] in kinds)

    def find(self, wanted: str) -> Object:
        """The object with that title; an empty one where there is none."""
        return next((thing for thing in self.objects if title(thing) == wanted), {})

    def pods(self) -> list[Pods]:
        """Of every workload."""
        return [
            Pods(title(thing), thing["spec"]["template"]["spec"], thing["spec"]["template"]["metadata"]["labels"])
            for thing in self.of(*WORKLOADS)
        ]

    def pods_of(self, workload: str) -> Pods:
        """Of one; empty ones where there is none."""
        return next((pods for pods in self.pods() if pods.workload == workload), Pods(workload, {"containers": []}, {}))

    def changed(self, change: Callable[[Rendering], None]) -> Rendering:
        """A copy with a change."""
        other = Rendering(copy.deepcopy(self.objects))
        change(other)
        return other


def environment_of(rendering: Rendering, container: Object) -> dict[str, str]:
    """What the container finds set: its ConfigMaps, overruled by its own variables."""
    maps = {title(thing): thing["data"] for thing in rendering.of("ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        found |= maps.get(f"ConfigMap/{at(source, 'configMapRef.name')}", {})
    return found | {variable["name"]: str(variable.get("value")) for variable in container.get("env") or []}
