"""What holds for every pod: Kubernetes' `restricted` standard, and beyond it no token, no links, a read-only root.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.deploy.manifests import Object, Pods, Rendering, at

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
OTHERS_MAY_READ = 0o007
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def amount(text: object) -> float:
    """A quantity of Kubernetes: 500m, 128Mi; 0 where there is none."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    return float(found[1]) * UNITS[found[2]] if found else 0.0


def pod_faults(rendering: Rendering) -> Iterator[str]:
    """Every fault of every pod, the workload and the setting named."""
    for pods in rendering.pods():
        yield from (f"{pods.workload}: {fault}" for fault in _of_pod(pods))
        for container in pods.containers:
            faults = (*_of_container(container), *_of_mounts(pods, container))
            yield from (f"{pods.workload}: {container['name']}: {fault}" for fault in faults)


def _of_pod(pods: Pods) -> Iterator[str]:
    spec = pods.spec
    for setting in ("automountServiceAccountToken", "enableServiceLinks"):
        if spec.get(setting) is not False:
            yield f"{setting} is not false"
    yield from (f"{setting} is set" for setting in ("hostNetwork", "hostPID", "hostIPC") if spec.get(setting))
    context = spec.get("securityContext") or {}
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    for setting in ("runAsUser", "runAsGroup"):
        if not isinstance(context.get(setting), int) or context[setting] == 0:
            yield f"{setting} is not the number of somebody but root"
    if at(context, "seccompProfile.type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"
    for volume in spec.get("volumes") or []:
        yield from (f"volume {volume['name']}: {kind} is not allowed" for kind in set(volume) - {"name"} - VOLUMES)
        if "secret" in volume and at(volume, "secret.defaultMode", 0o644) & OTHERS_MAY_READ:
            yield f"volume {volume['name']}: defaultMode lets everybody read the secret"


def _of_container(container: Object) -> Iterator[str]:
    yield from _of_context(container.get("securityContext") or {})
    if not re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]):
        yield f"image {container['image']} has no fixed tag"
    yield from (f"hostPort {port['hostPort']} is taken" for port in container.get("ports") or [] if "hostPort" in port)
    yield from _of_resources(container.get("resources") or {})
    for variable in container.get("env") or []:
        if at(variable, "valueFrom.secretKeyRef"):
            yield f"env {variable['name']}: a secret is in the environment, not in a file"
    if any("secretRef" in source for source in container.get("envFrom") or []):
        yield "envFrom: a secret is in the environment, not in a file"


def _of_context(context: Object) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("privileged"):
        yield "privileged is set"
    if at(context, "capabilities.drop") != ["ALL"] or at(context, "capabilities.add"):
        yield "capabilities are not all dropped"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    for setting in ("runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"):
        if setting in context:
            yield f"{setting} of the pod is overruled"


def _of_resources(resources: Object) -> Iterator[str]:
    for name in ("requests.cpu", "requests.memory", "limits.memory"):
        if not amount(at(resources, name)):
            yield f"resources.{name} is missing"
    if at(resources, "limits.cpu") is not None and amount(at(resources, "limits.cpu")) < 1:
        yield "resources.limits.cpu is less than the core that one thread can take"
    if amount(at(resources, "limits.memory")) < amount(at(resources, "requests.memory")):
        yield "resources.limits.memory is less than what is requested"


def _of_mounts(pods: Pods, container: Object) -> Iterator[str]:
    secrets = {volume["name"] for volume in pods.spec.get("volumes") or [] if "secret" in volume}
    for mount in container.get("volumeMounts") or []:
        if mount["name"] in secrets and mount.get("readOnly") is not True:
            yield f"mount {mount['mountPath']}: readOnly is not true"
