"""What may talk to what: everything is denied, and what is allowed names its peers and its ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.deploy.manifests import Object, Pods, Rendering, at, matches

MIGRATE, SERVICE = "Job/drover-migrate", "Deployment/drover"
HTTPS, POSTGRES, DNS, OTLP = 443, 5432, 53, 4318
AMQP, AMQPS = 5672, 5671
SANDBOX_HUB = 8100
# A hub on the internet is no reason to reach the cluster's own networks, or a cloud's metadata at 169.254.169.254.
PRIVATE = {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"}


def network_faults(rendering: Rendering) -> Iterator[str]:
    """Every fault of the network policies."""
    policies = list(rendering.of("NetworkPolicy"))
    denying = [policy for policy in policies if _denies_everything(policy)]
    if not denying:
        yield "NetworkPolicy: none denies by default what comes in and what goes out of every pod"
    for policy in policies:
        name = f"NetworkPolicy/{at(policy, 'metadata.name')}"
        if not any(matches(at(policy, "spec.podSelector"), pods.labels) for pods in rendering.pods()):
            yield f"{name}: podSelector takes no pod"
        yield from (f"{name}: {fault}" for fault in _of_rules(policy))
    yield from _of_ways(rendering)


def _denies_everything(policy: Object) -> bool:
    spec = policy["spec"]
    both = set(spec.get("policyTypes") or []) == {"Ingress", "Egress"}
    return spec.get("podSelector") == {} and both and not spec.get("ingress") and not spec.get("egress")


def _of_rules(policy: Object) -> Iterator[str]:
    spec = policy["spec"]
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        rules = spec.get(direction) or []
        if rules and direction.capitalize() not in spec["policyTypes"]:
            yield f"policyTypes leaves {direction} out"
        for rule in rules:
            if not rule.get(peers):
                yield f"{direction} is open to everybody"
            if not rule.get("ports"):
                yield f"{direction} is open at every port"
            yield from (f"{direction} {fault}" for peer in rule.get(peers) or [] for fault in _of_peer(peer, rule))


def _of_peer(peer: Object, rule: Object) -> Iterator[str]:
    block = at(peer, "ipBlock.cidr")
    if block in ("0.0.0.0/0", "::/0"):
        if {port.get("port") for port in rule.get("ports") or []} != {HTTPS}:
            yield f"to {block} goes beyond port {HTTPS}"
        family = {private for private in PRIVATE if (":" in private) == (":" in block)}
        if family - set(at(peer, "ipBlock.except", [])):
            yield f"to {block} includes private networks"
    if "namespaceSelector" in peer and not at(peer, "namespaceSelector.matchLabels"):
        yield "is open to every namespace"
    if "namespaceSelector" not in peer and "podSelector" in peer and not at(peer, "podSelector.matchLabels"):
        yield "is open to every pod"


def _ports(rendering: Rendering, pods: Pods, direction: str) -> set[object]:
    """The ports that the policies open for these pods."""
    chosen = [policy["spec"] for policy in rendering.of("NetworkPolicy") if _selects(policy, pods.labels)]
    rules = [rule for spec in chosen for rule in spec.get(direction) or []]
    return {port.get("port") for rule in rules for port in rule.get("ports") or []}


def _selects(policy: Object, labels: Mapping[str, Any]) -> bool:
    return matches(at(policy, "spec.podSelector"), labels)


def _of_ways(rendering: Rendering) -> Iterator[str]:
    """That drover gets where it has to, and nowhere else."""
    sandbox = rendering.find("Deployment/drover-hub") != {}
    broker, hub = (AMQP, SANDBOX_HUB) if sandbox else (AMQPS, HTTPS)
    optional = set() if sandbox else {OTLP}
    for workload, needed in ((SERVICE, {DNS, POSTGRES, broker, hub}), (MIGRATE, {DNS, POSTGRES})):
        pods = rendering.pods_of(workload)
        found = _ports(rendering, pods, "egress")
        yield from (f"NetworkPolicy: {workload} cannot reach port {port}" for port in sorted(needed - found))
        beyond = found - needed - (optional if workload == SERVICE else set())
        yield from (f"NetworkPolicy: {workload} may reach port {port}, which it has no use for" for port in beyond)
    entered = _ports(rendering, rendering.pods_of(SERVICE), "ingress")
    if entered != {"http"}:
        yield f"NetworkPolicy: {SERVICE} is entered at {sorted(map(str, entered))}, not at http alone"
    if _ports(rendering, rendering.pods_of(MIGRATE), "ingress"):
        yield f"NetworkPolicy: {MIGRATE} can be entered"
