"""The policy holds for every overlay, and sees each of its settings loosened: one by one, in a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.deploy.manifests import OVERLAYS, Object, Rendering, at, render
from tests.deploy.policy import faults

SANDBOX, PRODUCTION, SCALING = OVERLAYS
POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
HTTP_RULE = "spec.ingress.0"


class Gone:
    """Stands for a setting that is taken out."""

    def __repr__(self) -> str:
        return "gone"


GONE = Gone()


@dataclass(frozen=True)
class Loosened:
    """One setting with another value, and what the policy then says."""

    thing: str
    path: str
    value: object
    told: str
    overlay: str = PRODUCTION

    def __str__(self) -> str:
        return f"{self.thing}:{self.path.removeprefix(POD + '.')}={self.value}"[:100]

    def __call__(self, rendering: Rendering) -> None:
        put(rendering.find(self.thing), self.path, self.value)


def put(thing: Object, path: str, value: object) -> None:
    """Sets what stands at a dotted path, or takes it out; dots of a key are written as commas."""
    parent, _, last = path.rpartition(".")
    holder, last = (at(thing, parent) if parent else thing), last.replace(",", ".")
    assert isinstance(holder, (dict, list)), f"nothing at {parent}"
    place: Any = int(last) if isinstance(holder, list) else last
    if value is GONE:
        del holder[place]
    else:
        holder[place] = value


def everywhere(setting: str, value: object, told: str) -> list[Loosened]:
    """The same setting in every pod that there is."""
    pods = [("Deployment/drover", PRODUCTION), ("Job/drover-migrate", PRODUCTION), ("Deployment/drover-hub", SANDBOX)]
    pods += [("StatefulSet/drover-postgres", SANDBOX), ("StatefulSet/drover-rabbitmq", SANDBOX)]
    return [Loosened(thing, f"{POD}.{setting}", value, told, overlay) for thing, overlay in pods]


def service(path: str, value: object, told: str) -> Loosened:
    return Loosened("Deployment/drover", path, value, told)


ROOT = "is not the number of somebody but root"
LINKS = "containers.0.securityContext"
SECURITY = [
    *everywhere("automountServiceAccountToken", GONE, "automountServiceAccountToken is not false"),
    *everywhere("enableServiceLinks", GONE, "enableServiceLinks is not false"),
    *everywhere("hostNetwork", True, "hostNetwork is set"),
    *everywhere("hostPID", True, "hostPID is set"),
    *everywhere("hostIPC", True, "hostIPC is set"),
    *everywhere("securityContext.runAsNonRoot", False, "runAsNonRoot is not true"),
    *everywhere("securityContext.runAsUser", 0, f"runAsUser {ROOT}"),
    *everywhere("securityContext.runAsUser", GONE, f"runAsUser {ROOT}"),
    *everywhere("securityContext.runAsGroup", 0, f"runAsGroup {ROOT}"),
    *everywhere("securityContext.seccompProfile.type", "Unconfined", "seccompProfile is not RuntimeDefault"),
    *everywhere(f"{LINKS}.allowPrivilegeEscalation", GONE, "allowPrivilegeEscalation is not false"),
    *everywhere(f"{LINKS}.privileged", True, "privileged is set"),
    *everywhere(f"{LINKS}.capabilities.drop", ["NET_RAW"], "capabilities are not all dropped"),
    *everywhere(f"{LINKS}.capabilities.add", ["NET_ADMIN"], "capabilities are not all dropped"),
    *everywhere(f"{LINKS}.readOnlyRootFilesystem", False, "readOnlyRootFilesystem is not true"),
    *everywhere(f"{LINKS}.runAsUser", 0, "runAsUser of the pod is overruled"),
    *everywhere("containers.0.image", "drover", "has no fixed tag"),
    *everywhere("containers.0.image", "drover:latest", "has no fixed tag"),
    *everywhere("containers.0.resources.limits", {}, "resources.limits.memory is missing"),
    *everywhere("containers.0.resources.requests.memory", "9Gi", "limits.memory is less than what is requested"),
    *everywhere("containers.0.resources.requests.cpu", GONE, "resources.requests.cpu is missing"),
    service(f"{CONTAINER}.ports.0.hostPort", 8080, "hostPort 8080 is taken"),
    service(f"{POD}.volumes.0", {"name": "ca", "hostPath": {"path": "/etc"}}, "hostPath is not allowed"),
    service(f"{POD}.volumes.1.secret.defaultMode", 0o444, "lets everybody read the secret"),
    service(f"{POD}.volumes.1.secret.defaultMode", GONE, "lets everybody read the secret"),
    service(f"{CONTAINER}.volumeMounts.0.readOnly", False, "readOnly is not true"),
    service(f"{CONTAINER}.envFrom.0", {"secretRef": {"name": "drover-secrets"}}, "a secret is in the environment"),
    service(
        f"{CONTAINER}.env.0",
        {"name": "OXEN_API_KEY", "valueFrom": {"secretKeyRef": {"name": "drover-secrets", "key": "oxen-api-key"}}},
        "OXEN_API_KEY: a secret is in the environment",
    ),
    service(f"{CONTAINER}.env.1", {"name": "DROVER_AMQP_URL", "value": "amqp://a:b@c/"}, "AMQP_URL is set itself"),
    service(f"{POD}.serviceAccountName", "default", "serviceAccountName is not drover"),
    Loosened("ServiceAccount/drover", "automountServiceAccountToken", True, "automountServiceAccountToken"),
    Loosened("Namespace/drover", "metadata.labels", {}, "pod-security.kubernetes.io/enforce is not restricted"),
    Loosened(
        "Namespace/drover-sandbox",
        "metadata.labels.pod-security,kubernetes,io/enforce",
        "baseline",
        "pod-security.kubernetes.io/enforce is not restricted",
        SANDBOX,
    ),
    Loosened("Service/drover", "metadata.namespace", "default", "Service/drover: namespace is not drover"),
]

SPREAD = f"{POD}.topologySpreadConstraints"
AVAILABILITY = [
    service("spec.replicas", 1, "replicas are fewer than two"),
    service("spec.strategy.rollingUpdate.maxUnavailable", 1, "maxUnavailable is not 0"),
    service("spec.strategy", {"type": "Recreate"}, "maxUnavailable is not 0"),
    service("spec.strategy.rollingUpdate.maxSurge", 2, "maxSurge is not 1"),
    service("spec.minReadySeconds", GONE, "minReadySeconds is not more than"),
    service(f"{POD}.terminationGracePeriodSeconds", 30, "terminationGracePeriodSeconds is less than"),
    service(f"{POD}.terminationGracePeriodSeconds", GONE, "terminationGracePeriodSeconds is less than"),
    service(f"{CONTAINER}.lifecycle.preStop.sleep.seconds", 15, "terminationGracePeriodSeconds is less than"),
    service(f"{CONTAINER}.lifecycle", GONE, "preStop does not wait"),
    *(service(f"{CONTAINER}.{name}", GONE, f"{name} does not ask") for name in ("startupProbe", "readinessProbe")),
    service(f"{CONTAINER}.livenessProbe", GONE, "livenessProbe does not ask /healthz"),
    service(f"{CONTAINER}.livenessProbe.httpGet.path", "/readyz", "livenessProbe does not ask /healthz"),
    service(f"{CONTAINER}.readinessProbe.httpGet.path", "/healthz", "readinessProbe does not ask /readyz"),
    service(f"{CONTAINER}.startupProbe.httpGet.port", "metrics", "startupProbe asks a port"),
    service(f"{CONTAINER}.livenessProbe.failureThreshold", 1, "livenessProbe restarts a replica that was busy"),
    service(f"{CONTAINER}.readinessProbe.timeoutSeconds", 1, "timeoutSeconds cuts a check off"),
    service(f"{SPREAD}.0.topologyKey", "rack", "does not spread over kubernetes.io/hostname"),
    service(f"{SPREAD}.1", GONE, "does not spread over topology.kubernetes.io/zone"),
    service(f"{SPREAD}.0.whenUnsatisfiable", "DoNotSchedule", "does not spread over kubernetes.io/hostname"),
    service(f"{SPREAD}.1.labelSelector.matchLabels", {"app": "drover"}, "counts other pods"),
    service(f"{CONTAINER}.resources.requests.memory", "64Mi", "requests.memory is less than the 97 MiB measured"),
    service(f"{CONTAINER}.resources.limits.memory", "130Mi", "does not hold 5,000 followers"),
    service(f"{CONTAINER}.resources.limits.cpu", "500m", "limits.cpu is less than the core"),
    Loosened("PodDisruptionBudget/drover", "spec.maxUnavailable", 2, "PodDisruptionBudget/drover: maxUnavailable"),
    Loosened("PodDisruptionBudget/drover", "spec.unhealthyPodEvictionPolicy", GONE, "unhealthyPodEvictionPolicy"),
    Loosened("PodDisruptionBudget/drover", "spec.selector.matchLabels", {"app": "drover"}, "selector does not take"),
    Loosened("ScaledObject/drover", "spec.minReplicaCount", 1, "minReplicaCount is less than two", SCALING),
    Loosened("ScaledObject/drover", "spec.minReplicaCount", GONE, "minReplicaCount is less than two", SCALING),
    Loosened("ScaledObject/drover", "spec.maxReplicaCount", 2, "maxReplicaCount leaves nothing", SCALING),
    Loosened("ScaledObject/drover", "spec.fallback.replicas", 1, "fallback keeps fewer than two", SCALING),
    Loosened("ScaledObject/drover", "spec.scaleTargetRef.name", "other", "scaleTargetRef is not", SCALING),
    Loosened("ScaledObject/drover", "spec.triggers.0.type", "rabbitmq", "ask something else", SCALING),
    Loosened("ScaledObject/drover", "spec.triggers.0.metadata.connection", "postgresql://a:b@c", "password", SCALING),
    Loosened("ScaledObject/drover", "spec.triggers.0.authenticationRef", GONE, "leads to no connection", SCALING),
    Loosened("Deployment/drover", "spec.replicas", 2, "replicas is set beside an autoscaler", SCALING),
]

ANYWHERE = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
NETWORK = [
    Loosened("NetworkPolicy/default-deny", "spec.policyTypes", ["Ingress"], "none denies by default"),
    Loosened("NetworkPolicy/default-deny", "spec.podSelector", {"matchLabels": {"a": "b"}}, "none denies by default"),
    Loosened("NetworkPolicy/default-deny", "spec.egress", [{}], "none denies by default"),
    Loosened("NetworkPolicy/default-deny", "spec.egress", [{}], "egress is open to everybody"),
    Loosened("NetworkPolicy/drover-http", f"{HTTP_RULE}.from", GONE, "ingress is open to everybody"),
    Loosened("NetworkPolicy/drover-http", f"{HTTP_RULE}.ports", GONE, "ingress is open at every port"),
    Loosened("NetworkPolicy/drover-http", f"{HTTP_RULE}.ports.0.port", 9000, "is entered at ['9000']"),
    Loosened("NetworkPolicy/drover-http", f"{HTTP_RULE}.from.0.namespaceSelector", {}, "open to every namespace"),
    Loosened("NetworkPolicy/drover-http", f"{HTTP_RULE}.from.0", {"podSelector": {}}, "open to every pod"),
    Loosened("NetworkPolicy/drover-http", "spec.podSelector.matchLabels", {"app": "drover"}, "takes no pod"),
    Loosened("NetworkPolicy/drover-http", "spec.podSelector", {}, "Job/drover-migrate can be entered"),
    Loosened("NetworkPolicy/drover-http", "spec.policyTypes", ["Egress"], "policyTypes leaves ingress out"),
    Loosened("NetworkPolicy/drover-to-hub", "spec.egress.0.to.0.ipBlock.except", [], "includes private networks"),
    Loosened("NetworkPolicy/drover-to-hub", "spec.egress.0.to.1.ipBlock.except", GONE, "includes private networks"),
    Loosened("NetworkPolicy/drover-to-hub", "spec.egress.0.ports.0.port", 80, "goes beyond port 443"),
    Loosened("NetworkPolicy/drover-to-hub", "spec.egress.0.ports.0.port", 80, "cannot reach port 443"),
    Loosened("NetworkPolicy/drover-to-database", "spec.egress.0.to", ANYWHERE, "goes beyond port 443"),
    Loosened("NetworkPolicy/drover-to-database", "spec.egress", [], "Job/drover-migrate cannot reach port 5432"),
    Loosened("NetworkPolicy/drover-to-broker", "spec.egress.0.ports.0.port", 5672, "may reach port 5672"),
    Loosened("NetworkPolicy/drover-to-broker", "spec.egress", [], "Deployment/drover cannot reach port 5671"),
    Loosened("NetworkPolicy/dns", "spec.egress", [], "cannot reach port 53"),
    Loosened("NetworkPolicy/drover-to-others", "spec.egress.0", GONE, "cannot reach port 8100", SANDBOX),
    Loosened("NetworkPolicy/drover-rabbitmq", "spec.ingress.0.from", [{"podSelector": {}}], "every pod", SANDBOX),
]

CONSISTENCY = [
    service(f"{CONTAINER}.env.0.name", "OXEN_API_KEY_FIEL", "nothing reads OXEN_API_KEY_FIEL"),
    service(f"{CONTAINER}.env.0.name", "OXEN_API_KEY_FIEL", "OXEN_API_KEY_FILE is not set"),
    service(f"{CONTAINER}.env.0.value", "/run/secrets/other", "no secret is mounted at /run/secrets/other"),
    service(f"{CONTAINER}.env.0.value", "/run/secrets/other", "nothing reads the secret at"),
    service(f"{CONTAINER}.ports.0.containerPort", 8081, "containerPort is not DROVER_HTTP_PORT"),
    service(
        f"{CONTAINER}.env.1", {"name": "DROVER_MIGRATE_ON_START", "value": "true"}, "MIGRATE_ON_START is not false"
    ),
    service(f"{CONTAINER}.env.1", {"name": "DROVER_HTTP_HOST", "value": "127.0.0.1"}, "HTTP_HOST is not 0.0.0.0"),
    service(f"{CONTAINER}.env.1", {"name": "DROVER_SHUTDOWN_GRACE_S", "value": "60"}, "GracePeriodSeconds is less"),
    service(
        f"{CONTAINER}.env.1", {"name": "DROVER_SUBMIT_TIMEOUT_S", "value": "40"}, "DROVER_SHUTDOWN_GRACE_S must be"
    ),
    service("spec.selector.matchLabels", {"app": "drover"}, "selector does not match its own pods"),
    Loosened("Service/drover", "spec.selector.app,kubernetes,io/component", GONE, "Job/drover-migrate"),
    Loosened("Service/drover", "spec.type", "LoadBalancer", "type is not ClusterIP"),
    Loosened("Service/drover", "spec.ports.0.targetPort", "web", "targetPort web is none"),
    Loosened("Service/drover-rabbitmq", "spec.ports.0.targetPort", 5671, "targetPort 5671 is none", SANDBOX),
    Loosened("ServiceMonitor/drover", "spec.selector.matchLabels", {"app": "drover"}, "does not take Service/drover"),
    Loosened("ServiceMonitor/drover", "spec.endpoints.0.port", "metrics", "endpoints asks for"),
    Loosened("ServiceMonitor/drover", "spec.endpoints.0.path", "/metricz", "endpoints asks for"),
    Loosened("Job/drover-migrate", f"{CONTAINER}.args", ["serve"], "args are not those"),
    Loosened("Job/drover-migrate", f"{CONTAINER}.image", "drover:0.0.9", "image is not that of Deployment/drover"),
    Loosened("Job/drover-migrate", "metadata.name", "drover-migrate", "does not end with the image's tag"),
    Loosened("Job/drover-migrate", f"{CONTAINER}.envFrom", [{"configMapRef": {"name": "x"}}], "cannot be changed"),
    Loosened("Job/drover-migrate", f"{POD}.serviceAccountName", "drover", "serviceAccountName is not default"),
    Loosened("Job/drover-migrate", "spec.ttlSecondsAfterFinished", GONE, "ttlSecondsAfterFinished is missing"),
    Loosened("Job/drover-migrate", "metadata.annotations", {}, "argocd.argoproj.io/hook is not PreSync"),
    Loosened(
        "Job/drover-migrate",
        "metadata.annotations",
        {"argocd.argoproj.io/hook": "PreSync"},
        "would wait for the database",
        SANDBOX,
    ),
]


def found(overlay: str, change: Callable[[Rendering], None] = lambda _: None) -> list[str]:
    """The faults of an overlay with a change."""
    return faults(Rendering(render(overlay)).changed(change), secrets_in_git=overlay == SANDBOX)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_policy_holds(overlay: str) -> None:
    assert found(overlay) == []


@pytest.mark.parametrize("loosened", [*SECURITY, *AVAILABILITY, *NETWORK, *CONSISTENCY], ids=str)
def test_a_loosened_setting_is_seen_and_named(loosened: Loosened) -> None:
    told = found(loosened.overlay, loosened)
    assert any(loosened.told in fault for fault in told), told


def test_a_secret_in_git_is_seen() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "drover-secrets", "namespace": "drover"}}

    def commit(rendering: Rendering) -> None:
        assert isinstance(rendering.objects, list)
        rendering.objects.append(secret)

    assert found(PRODUCTION, commit) == ["Secret/drover-secrets: a secret is in git"]


def test_a_container_that_only_begins_the_pod_is_judged_as_well() -> None:
    beginning: Mapping[str, object] = {"name": "wait", "image": "busybox:1.37"}
    told = found(PRODUCTION, service(f"{POD}.initContainers", [beginning], ""))
    assert "Deployment/drover: wait: capabilities are not all dropped" in told
