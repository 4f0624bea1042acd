"""The policy of the manifests: what keeps drover safe and available, and its parts in step with each other.

Pure: objects in, faults out. Each fault begins with the object and names the setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.domain.errors import ConfigurationError
from service.http.server import CHECK_TIMEOUT_S
from service.settings import Settings, load_settings, unknown_variables
from tests.deploy.manifests import Object, Rendering, at, environment_of, matches, title
from tests.deploy.network_rules import MIGRATE, SERVICE, network_faults
from tests.deploy.pod_rules import amount, pod_faults

END_S = 5  # for the process to end after its grace
LEASE_S = 10  # another leads within that (deploy/OPERATING.md)
MEASURED_MIB = 97  # at the most without followers, and what 5,000 of them add (deploy/CAPACITY.md)
FOLLOWERS_MIB = 88
MIB = 1 << 20
SELECTABLE = 63  # characters: a Job's name is a label of its pods
# What comes from mounted files alone, with something of its kind to load the settings by.
SECRETS = {
    "OXEN_API_KEY": "key",
    "DROVER_AMQP_URL": "amqps://broker.test/",
    "DROVER_DATABASE_URL": "postgresql://database.test/drover",
    "DROVER_API_TOKENS": "token",
}
CLUSTER_WIDE = {"Namespace"}
RESTRICTED = "pod-security.kubernetes.io/enforce"


def faults(rendering: Rendering, *, secrets_in_git: bool = False) -> list[str]:
    """Everything that is wrong. `secrets_in_git`: the sandbox's are none."""
    found = [*pod_faults(rendering), *network_faults(rendering), *_of_namespace(rendering)]
    found += [*_of_service(rendering), *_of_place(rendering), *_of_probes(rendering)]
    found += [*_of_environment(rendering), *_of_selectors(rendering), *_of_budget(rendering), *_of_monitor(rendering)]
    found += [*_of_migration(rendering), *_of_scaling(rendering)]
    if not secrets_in_git:
        found += [f"{title(secret)}: a secret is in git" for secret in rendering.of("Secret")]
    return found


def _of_namespace(rendering: Rendering) -> Iterator[str]:
    [namespace] = rendering.of("Namespace")
    if at(namespace, "metadata.labels", {}).get(RESTRICTED) != "restricted":
        yield f"{title(namespace)}: {RESTRICTED} is not restricted"
    for thing in rendering.objects:
        if thing["kind"] not in CLUSTER_WIDE and at(thing, "metadata.namespace") != at(namespace, "metadata.name"):
            yield f"{title(thing)}: namespace is not {at(namespace, 'metadata.name')}"


def _of_service(rendering: Rendering) -> Iterator[str]:
    """How the Deployment is rolled out, and as whom it runs."""
    deployment = rendering.find(SERVICE)
    rolling = at(deployment, "spec.strategy", {})
    if at(rolling, "rollingUpdate.maxUnavailable") != 0 or rolling.get("type") != "RollingUpdate":
        yield f"{SERVICE}: maxUnavailable is not 0: a rollout takes a replica away before its successor is ready"
    if at(rolling, "rollingUpdate.maxSurge") != 1:
        yield f"{SERVICE}: maxSurge is not 1"
    if at(deployment, "spec.minReadySeconds", 0) <= LEASE_S:
        yield f"{SERVICE}: minReadySeconds is not more than the {LEASE_S} s that a change of leaders may take"
    if rendering.pods_of(SERVICE).spec.get("serviceAccountName") != "drover":
        yield f"{SERVICE}: serviceAccountName is not drover"
    if rendering.find("ServiceAccount/drover").get("automountServiceAccountToken") is not False:
        yield "ServiceAccount/drover: automountServiceAccountToken is not false"


def _of_place(rendering: Rendering) -> Iterator[str]:
    """Where its pods go, and what they take there."""
    spec = rendering.pods_of(SERVICE).spec
    spread = {each["topologyKey"]: each for each in spec.get("topologySpreadConstraints") or []}
    for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone"):
        if at(spread.get(key), "whenUnsatisfiable") != "ScheduleAnyway" or at(spread.get(key), "maxSkew") != 1:
            yield f"{SERVICE}: topologySpreadConstraints does not spread over {key}"
        elif not matches(spread[key].get("labelSelector"), rendering.pods_of(SERVICE).labels):
            yield f"{SERVICE}: topologySpreadConstraints over {key} counts other pods"
    resources = at(spec, "containers.0.resources", {})
    if amount(at(resources, "requests.memory")) < MEASURED_MIB * MIB:
        yield f"{SERVICE}: resources.requests.memory is less than the {MEASURED_MIB} MiB measured"
    if amount(at(resources, "limits.memory")) < (MEASURED_MIB + FOLLOWERS_MIB) * MIB:
        yield f"{SERVICE}: resources.limits.memory does not hold 5,000 followers besides"


def _of_probes(rendering: Rendering) -> Iterator[str]:
    container = at(rendering.pods_of(SERVICE).spec, "containers.0", {})
    ports = {port["name"] for port in container.get("ports") or []}
    for name, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        probe = container.get(name) or {}
        if at(probe, "httpGet.path") != path:
            yield f"{SERVICE}: {name} does not ask {path}"
        if at(probe, "httpGet.port") not in ports:
            yield f"{SERVICE}: {name} asks a port that the container does not name"
    liveness, readiness = container.get("livenessProbe") or {}, container.get("readinessProbe") or {}
    if liveness.get("periodSeconds", 10) * liveness.get("failureThreshold", 3) < 30:
        yield f"{SERVICE}: livenessProbe restarts a replica that was busy for less than 30 s"
    if readiness.get("timeoutSeconds", 1) <= CHECK_TIMEOUT_S:
        yield f"{SERVICE}: readinessProbe: timeoutSeconds cuts a check off that may take {CHECK_TIMEOUT_S:g} s"


def _of_environment(rendering: Rendering) -> Iterator[str]:
    """Variables that drover knows, values that it takes, secrets from the mounted files alone."""
    for workload in (SERVICE, MIGRATE):
        pods = rendering.pods_of(workload)
        for container in pods.containers:
            given = environment_of(rendering, container)
            yield from (f"{workload}: nothing reads {name}" for name in unknown_variables(given))
            yield from (f"{workload}: {name} is set itself, not read from a file" for name in SECRETS if name in given)
            mounted = _mounted_secrets(pods.spec, container)
            files = {path for name, path in given.items() if name.endswith("_FILE")}
            yield from (f"{workload}: no secret is mounted at {path}" for path in sorted(files - mounted))
            yield from (f"{workload}: nothing reads the secret at {path}" for path in sorted(mounted - files))
    container = at(rendering.pods_of(SERVICE).spec, "containers.0", {})
    given = environment_of(rendering, container)
    yield from (f"{SERVICE}: {name}_FILE is not set" for name in SECRETS if f"{name}_FILE" not in given)
    plain = {name: value for name, value in given.items() if not name.endswith("_FILE")}
    try:
        settings = load_settings({**plain, **SECRETS})
    except ConfigurationError as error:
        yield f"{SERVICE}: {error}"
    else:
        yield from (f"{SERVICE}: {fault}" for fault in _of_settings(rendering, settings))


def _mounted_secrets(spec: Object, container: Object) -> set[str]:
    items = {
        volume["name"]: [item["path"] for item in at(volume, "secret.items", [])]
        for volume in spec.get("volumes") or []
        if "secret" in volume
    }
    mounts = container.get("volumeMounts") or []
    return {f"{mount['mountPath']}/{path}" for mount in mounts for path in items.get(mount["name"], [])}


def _of_settings(rendering: Rendering, settings: Settings) -> Iterator[str]:
    """That the pods and the settings mean the same."""
    spec = rendering.pods_of(SERVICE).spec
    if settings.migrate_on_start:
        yield "DROVER_MIGRATE_ON_START is not false: every replica would migrate, and the Job would have no use"
    if settings.http_host != "0.0.0.0":  # noqa: S104 - compared with
        yield "DROVER_HTTP_HOST is not 0.0.0.0: neither probes nor callers would get in"
    if [port["containerPort"] for port in at(spec, "containers.0.ports", [])] != [settings.http_port]:
        yield "containerPort is not DROVER_HTTP_PORT"
    delay = at(spec, "containers.0.lifecycle.preStop.sleep.seconds", 0)
    if not delay:
        yield "preStop does not wait until nobody sends callers here any more"
    if spec.get("terminationGracePeriodSeconds", 30) < delay + settings.shutdown_grace_s + END_S:
        yield f"terminationGracePeriodSeconds is less than preStop + DROVER_SHUTDOWN_GRACE_S + {END_S}"


def _of_selectors(rendering: Rendering) -> Iterator[str]:
    """That what chooses by labels chooses what it is meant for."""
    for thing in rendering.of("Deployment", "StatefulSet"):
        if not matches(at(thing, "spec.selector"), at(thing, "spec.template.metadata.labels", {})):
            yield f"{title(thing)}: selector does not match its own pods"
    for service in rendering.of("Service"):
        yield from (f"{title(service)}: {fault}" for fault in _of_one_service(rendering, service))


def _of_one_service(rendering: Rendering, service: Object) -> Iterator[str]:
    if at(service, "spec.type", "ClusterIP") != "ClusterIP":
        yield "type is not ClusterIP"
    takes = at(service, "spec.selector", {}).items()
    chosen = [pods for pods in rendering.pods() if takes <= pods.labels.items()]
    if [pods.workload.partition("/")[2] for pods in chosen] != [at(service, "metadata.name")]:
        yield f"selector takes {[pods.workload for pods in chosen]}"
        return
    named = {port["name"] for container in chosen[0].containers for port in container.get("ports") or []}
    for port in at(service, "spec.ports", []):
        if port.get("targetPort") not in named:
            yield f"targetPort {port.get('targetPort')} is none of the container's"


def _of_budget(rendering: Rendering) -> Iterator[str]:
    labels = rendering.pods_of(SERVICE).labels
    budget = rendering.find("PodDisruptionBudget/drover")
    if at(budget, "spec.maxUnavailable") != 1:
        yield "PodDisruptionBudget/drover: maxUnavailable is not 1"
    if not at(budget, "spec.selector") or not matches(at(budget, "spec.selector"), labels):
        yield f"PodDisruptionBudget/drover: selector does not take the pods of {SERVICE}"
    if at(budget, "spec.unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "PodDisruptionBudget/drover: unhealthyPodEvictionPolicy is not AlwaysAllow"


def _of_monitor(rendering: Rendering) -> Iterator[str]:
    for monitor in rendering.of("ServiceMonitor"):
        service = rendering.find("Service/drover")
        if not matches(at(monitor, "spec.selector"), at(service, "metadata.labels", {})):
            yield f"{title(monitor)}: selector does not take Service/drover"
        ports = {port["name"] for port in at(service, "spec.ports", [])}
        for endpoint in at(monitor, "spec.endpoints", []):
            if endpoint.get("port") not in ports or endpoint.get("path") != "/metrics":
                yield f"{title(monitor)}: endpoints asks for what Service/drover does not have"


def _of_migration(rendering: Rendering) -> Iterator[str]:
    job, spec = rendering.find(MIGRATE), rendering.pods_of(MIGRATE).spec
    image = at(rendering.pods_of(SERVICE).spec, "containers.0.image", "")
    if at(spec, "containers.0.args") != ["migrate"]:
        yield f"{MIGRATE}: args are not those of `drover migrate`"
    if at(spec, "containers.0.image") != image:
        yield f"{MIGRATE}: image is not that of {SERVICE}"
    name = str(at(job, "metadata.name"))
    tag = image.rpartition(":")[2]
    if name != f"drover-migrate-{tag}" or len(name) > SELECTABLE or not re.fullmatch(r"[a-z0-9.-]+", name):
        yield f"{MIGRATE}: name {name} does not end with the image's tag: a new version could not be applied"
    if at(spec, "containers.0.envFrom"):
        yield f"{MIGRATE}: envFrom: a changed setting would change a Job, which cannot be changed"
    if spec.get("serviceAccountName") != "default":
        yield f"{MIGRATE}: serviceAccountName is not default: a PreSync hook runs before any other is there"
    if at(job, "spec.ttlSecondsAfterFinished") is None:
        yield f"{MIGRATE}: ttlSecondsAfterFinished is missing"
    hook = at(job, "metadata.annotations", {}).get("argocd.argoproj.io/hook")
    inside = bool(rendering.find("StatefulSet/drover-postgres"))
    if inside and hook:
        yield f"{MIGRATE}: argocd.argoproj.io/hook would wait for the database, which would wait for the hook"
    if not inside and hook != "PreSync":
        yield f"{MIGRATE}: argocd.argoproj.io/hook is not PreSync"


def _of_scaling(rendering: Rendering) -> Iterator[str]:
    deployment = rendering.find(SERVICE)
    scalers = list(rendering.of("ScaledObject"))
    if not scalers:
        if at(deployment, "spec.replicas", 1) < 2:
            yield f"{SERVICE}: replicas are fewer than two"
        return
    [scaler] = scalers
    if at(deployment, "spec.replicas") is not None:
        yield f"{SERVICE}: replicas is set beside an autoscaler, which each apply would overrule"
    if at(scaler, "spec.minReplicaCount", 0) < 2:
        yield f"{title(scaler)}: minReplicaCount is less than two"
    if at(scaler, "spec.maxReplicaCount", 0) <= at(scaler, "spec.minReplicaCount", 0):
        yield f"{title(scaler)}: maxReplicaCount leaves nothing to scale"
    if at(scaler, "spec.fallback.replicas", 0) < 2:
        yield f"{title(scaler)}: fallback keeps fewer than two"
    yield from (f"{title(scaler)}: {fault}" for fault in _of_trigger(rendering, scaler))


def _of_trigger(rendering: Rendering, scaler: Object) -> Iterator[str]:
    target = at(scaler, "spec.scaleTargetRef", {})
    if f"{target.get('kind')}/{target.get('name')}" != SERVICE:
        yield f"scaleTargetRef is not {SERVICE}"
    for trigger in at(scaler, "spec.triggers", []):
        reference = f"TriggerAuthentication/{at(trigger, 'authenticationRef.name')}"
        refers = at(rendering.find(reference), "spec.secretTargetRef", [])
        if [each.get("parameter") for each in refers] != ["connection"]:
            yield "authenticationRef leads to no connection"
        if trigger.get("type") != "postgresql" or {"connection", "password"} & set(trigger.get("metadata") or {}):
            yield "triggers ask something else than the database, or hold its password"
