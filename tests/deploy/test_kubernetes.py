"""The manifests: kubectl renders them, Kubernetes' schemas take them, and what they name is there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from service.http.server import HttpServer
from service.settings import load_settings, unknown_variables
from service.telemetry import Metrics
from tests.deploy.manifests import FOLDER, OVERLAYS, WORKLOADS, Rendering, at, render, title
from tests.deploy.rules import WRITTEN, alert_groups, prometheus_rule
from tests.deploy.validation import KNOWN, NEWEST, OLDEST, is_custom, schema_faults
from tests.integration.test_query_plans import FILL

FOLDERS = ("base", *OVERLAYS)
README = (FOLDER / "README.md").read_text("utf-8")


def rendering(folder: str) -> Rendering:
    return Rendering(render(folder))


# -- rendered and valid -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_one_that_kubernetes_takes(folder: str, version: str) -> None:
    assert list(schema_faults(render(folder), version)) == []


def test_the_newest_kubernetes_whose_schemas_are_here_is_among_those_that_are_tried() -> None:
    assert KNOWN == NEWEST


def test_the_schemas_see_a_misspelt_field_and_a_value_of_another_type() -> None:
    objects = [thing for thing in render("base") if title(thing) == "Deployment/drover"]
    objects[0]["spec"]["replicaas"] = 2
    assert "replicaas" in next(schema_faults(objects, NEWEST))
    del objects[0]["spec"]["replicaas"]
    objects[0]["spec"]["replicas"] = "2"
    assert "Deployment/drover: spec.replicas" in next(schema_faults(objects, NEWEST))


def test_a_kind_or_version_that_the_schemas_do_not_know_is_a_fault() -> None:
    unknown = {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "drover"}}
    assert "Couldn't find schema" in next(schema_faults([unknown], NEWEST))


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"])
def test_custom_resources_are_held_to_their_definitions(kind: str) -> None:
    objects = [thing for thing in render("overlays/production-keda") if thing["kind"] == kind]
    assert len(objects) == 1
    assert is_custom(objects[0])
    objects[0]["spec"]["misspelt"] = True
    assert f"{kind}/" in next(schema_faults(objects, NEWEST))


def test_the_overlay_for_production_is_part_of_the_one_that_scales() -> None:
    plain = {title(thing) for thing in render("overlays/production")}
    scaling = {title(thing) for thing in render("overlays/production-keda")}
    assert scaling - plain == {"ScaledObject/drover", "TriggerAuthentication/drover-backlog"}
    assert plain <= scaling


def test_a_changed_setting_is_another_config_map_and_rolls_the_pods(tmp_path: Path) -> None:
    """Beside the manifests, as an overlay of somebody's own."""
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources:\n  - {Path('..', *['..'] * len(tmp_path.parts), *FOLDER.parts[1:], 'overlays/production')}\n"
        "configMapGenerator:\n  - name: drover-settings\n    behavior: merge\n    namespace: drover\n"
        "    literals:\n      - DROVER_MAX_IN_FLIGHT=7\n"
    )
    before, after = rendering("overlays/production"), Rendering(render(tmp_path))
    path = "containers.0.envFrom.0.configMapRef.name"
    names = [at(each.pods_of("Deployment/drover").spec, path) for each in (before, after)]
    assert names[0] != names[1]
    assert at(after.find(f"ConfigMap/{names[1]}"), "data.DROVER_MAX_IN_FLIGHT") == "7"
    assert after.find("Job/drover-migrate") == before.find("Job/drover-migrate")


# -- what they name is there ------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    """Of an HTTP server of a replica that is well."""

    async def well() -> None:
        return None

    server = HttpServer(
        "127.0.0.1", 0, Metrics(), alive=lambda: None, checks={"database": well}, details=lambda: {"leading": False}
    )
    yield f"http://127.0.0.1:{await server.open()}"
    await server.close()


@pytest.mark.asyncio
async def test_every_path_that_is_probed_or_scraped_is_served(address: str) -> None:
    found = rendering("overlays/production")
    container = at(found.pods_of("Deployment/drover").spec, "containers.0")
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    paths |= {endpoint["path"] for endpoint in at(found.find("ServiceMonitor/drover"), "spec.endpoints")}
    assert paths == {"/healthz", "/readyz", "/metrics"}
    async with aiohttp.ClientSession() as session:
        for path in paths:
            async with session.get(address + path) as answer:
                assert answer.status == 200, path


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_secret_is_explained_with_its_keys_and_the_sandbox_makes_those_of_its_own(folder: str) -> None:
    found = rendering(folder)
    asked = {
        (at(volume, "secret.secretName"), item["key"])
        for pods in found.pods()
        for volume in pods.spec.get("volumes") or []
        for item in at(volume, "secret.items", [])
    }
    asked |= {
        (reference["name"], reference["key"])
        for thing in found.of("TriggerAuthentication")
        for reference in at(thing, "spec.secretTargetRef", [])
    }
    made = {(at(thing, "metadata.name"), key) for thing in found.of("Secret") for key in at(thing, "data", {})}
    if folder == "overlays/sandbox":
        assert asked == made
        return
    explained = set(re.findall(r"^\| `([\w-]+)` \| `([\w.-]+)` \|", README, re.MULTILINE))
    assert asked == {(name, key) for name, key in explained if name in {secret for secret, _ in asked}}
    assert made == set()


def test_every_object_of_the_overlays_is_explained() -> None:
    kinds = {thing["kind"] for folder in OVERLAYS for thing in render(folder)} - {"Secret"}
    assert kinds <= set(re.findall(r"\b[A-Z][A-Za-z]+\b", README))


def test_service_links_would_set_variables_that_drover_warns_of_or_takes_for_its_own() -> None:
    """Why they are off: what Kubernetes sets for each Service of a namespace."""
    links: dict[str, str] = {}
    for service in ("drover", "drover-http"):
        name = service.upper().replace("-", "_")
        links |= {f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_SERVICE_PORT": "8080", f"{name}_PORT": "tcp://10.0.0.1"}
    assert {"DROVER_PORT", "DROVER_SERVICE_HOST", "DROVER_SERVICE_PORT"} <= set(unknown_variables(links))
    with pytest.raises(Exception, match="DROVER_HTTP_PORT"):
        load_settings({**links, "OXEN_API_KEY": "key"})


def test_the_alert_rules_are_those_of_prometheus() -> None:
    assert WRITTEN.read_text("utf-8") == prometheus_rule(), "run `.venv/bin/python -m tests.deploy.rules`"
    rule = rendering("overlays/production").find("PrometheusRule/drover")
    assert at(rule, "spec.groups") == alert_groups()


# -- the backlog that replicas are scaled by --------------------------------------------------------------------------


def backlog_query() -> str:
    [trigger] = at(rendering("overlays/production-keda").find("ScaledObject/drover"), "spec.triggers")
    return str(at(trigger, "metadata.query"))


@pytest_asyncio.fixture
async def filled(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """25,000 requests, of which 300 wait and 100 are being sent."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILL)
    yield connection
    await connection.close()


@pytest.mark.asyncio
async def test_the_backlog_is_what_is_due_and_what_is_being_sent(filled: asyncpg.Connection[asyncpg.Record]) -> None:
    assert await filled.fetchval(backlog_query()) == 400
    await filled.execute("update requests set next_attempt_at = now() + interval '1 hour' where state = 'accepted'")
    assert await filled.fetchval(backlog_query()) == 100


@pytest.mark.asyncio
async def test_the_backlog_is_counted_by_indexes_alone(filled: asyncpg.Connection[asyncpg.Record]) -> None:
    plan = "\n".join(row[0] for row in await filled.fetch(f"explain {backlog_query()}"))
    assert "Seq Scan" not in plan, plan
    assert re.findall(r"(?:using|on) (requests_(?:due|claimed))\b", plan), plan


def test_all_workloads_are_known_to_the_rules() -> None:
    makers = {thing["kind"] for folder in FOLDERS for thing in render(folder) if at(thing, "spec.template")}
    assert makers == set(WORKLOADS)
