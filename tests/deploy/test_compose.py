"""deploy/compose.yaml and what it mounts, judged without an engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import yaml

from service.settings import SUBMIT_MARGIN_S, Settings, load_settings, unknown_variables
from tests.support.dockerfile import stages
from tests.support.servers import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
OBSERVABILITY = DEPLOY / "observability"
VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


def read(path: Path) -> dict[str, Any]:
    """A YAML file; variables have their defaults, as they have without an environment."""
    document: dict[str, Any] = yaml.safe_load(VARIABLE.sub(r"\1", path.read_text()))
    return document


COMPOSE = read(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("drover", "migrate", "sandbox")
SCHEMA = json.loads((REPOSITORY / "tests" / "deploy" / "compose-spec.json").read_text())


def seconds(duration: str) -> int:
    """Of `40s`."""
    return int(duration.removesuffix("s"))


def mounts() -> list[tuple[Path, str]]:
    """Each file or folder of the repository that a container sees, and where."""
    named = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    return [(DEPLOY / source, target) for source, target, *_ in named if source.startswith(".")]


def secrets_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Each secret of a service, and where the service finds it."""
    named = [{"source": one} if isinstance(one, str) else one for one in service.get("secrets", [])]
    return {one["source"]: one.get("target", f"/run/secrets/{one['source']}") for one in named}


def test_it_is_a_compose_file() -> None:
    faults = [f"{fault.instance_path}: {fault.message}" for fault in judged(COMPOSE)]
    assert faults == []


def judged(document: Mapping[str, Any]) -> list[jsonschema_rs.ValidationError]:
    """What the specification has against a file."""
    return list(jsonschema_rs.Draft7Validator(SCHEMA).iter_errors(document))


def test_a_misspelt_key_is_seen() -> None:
    assert len(judged({"services": {"drover": {"image": "drover:1", "readonly": True}}})) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_an_exact_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_our_images_are_targets_of_the_dockerfile_and_have_the_version_of_the_project(name: str) -> None:
    build = SERVICES[name]["build"]
    dockerfile = DEPLOY / build["context"] / build["dockerfile"]
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert build["target"] in stages(dockerfile.read_text())
    assert SERVICES[name]["image"].partition(":")[2] == version
    assert dockerfile.resolve() == DEPLOY / "Dockerfile"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_without_capabilities_and_cannot_gain_any(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode", "ipc"} & set(service)
    assert service.get("user") not in ("root", "0")


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_a_read_only_root(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert "volumes" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


def test_there_is_a_port_for_every_replica() -> None:
    service = SERVICES["drover"]
    _, published, _ = service["ports"][0].split(":")
    first, last = map(int, published.split("-"))
    assert last - first + 1 == service["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", ["drover", "migrate"])
def test_every_variable_is_a_setting_and_the_settings_go_together(name: str, tmp_path: Path) -> None:
    environment = dict(SERVICES[name]["environment"])
    assert unknown_variables(environment) == {}
    write_secrets(tmp_path)
    places = {place: secret(source, tmp_path) for source, place in secrets_of(SERVICES[name]).items()}
    for variable, value in environment.items():
        if variable.endswith("_FILE"):
            environment[variable] = str(places[value])
    settings = load_settings(environment)
    assert urlsplit(settings.amqp_url.get_secret_value()).hostname in SERVICES
    assert urlsplit(settings.database_url.get_secret_value()).hostname in SERVICES
    assert urlsplit(settings.base_url.get_secret_value()).hostname in SERVICES
    assert len(settings.api_tokens) == 1
    assert settings.migrate_on_start is False


def test_a_container_has_time_to_drain() -> None:
    grace = float(SERVICES["drover"]["environment"]["DROVER_SHUTDOWN_GRACE_S"])
    assert grace >= Settings.model_fields["submit_timeout_s"].default + SUBMIT_MARGIN_S
    assert seconds(SERVICES["drover"]["stop_grace_period"]) >= grace + 5


def test_the_replicas_wait_for_the_schema_and_for_what_they_talk_to() -> None:
    wanted = {name: one["condition"] for name, one in SERVICES["drover"]["depends_on"].items()}
    assert wanted.pop("migrate") == "service_completed_successfully"
    assert wanted == {"rabbitmq": "service_healthy", "sandbox": "service_healthy"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    built = stages((DEPLOY / "Dockerfile").read_text())
    assert built["sandbox"].of("HEALTHCHECK")
    assert {name for name in ("postgres", "rabbitmq") if "test" in SERVICES[name]["healthcheck"]} == {
        "postgres",
        "rabbitmq",
    }


# -- secrets ----------------------------------------------------------------------------------------------------------


def write_secrets(folder: Path) -> None:
    """Runs the program that a person runs."""
    subprocess.run(
        [sys.executable, DEPLOY / "local" / "compose_secrets.py", "--to", folder], check=True, capture_output=True
    )


def secret(name: str, folder: Path) -> Path:
    """The file of a secret, in another folder than the file says."""
    return folder / Path(COMPOSE["secrets"][name]["file"]).name


def test_the_secrets_are_made_once_for_whom_they_are_for(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    write_secrets(folder)
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert first.keys() == {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    assert {name for service in SERVICES.values() for name in secrets_of(service)} == COMPOSE["secrets"].keys()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    password = urlsplit(first["database_url"].strip()).password
    assert (password, len(first["postgres_password"])) == (first["postgres_password"].strip(), 49)
    user = urlsplit(first["amqp_url"].strip())
    assert first["rabbitmq.conf"] == f"default_user = {user.username}\ndefault_pass = {user.password}\n"
    (folder / "amqp_url").unlink()
    write_secrets(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == first


def test_no_secret_can_be_committed() -> None:
    lines = (DEPLOY / "secrets" / ".gitignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["*", "!.gitignore"]
    assert {str(Path(one["file"]).parent) for one in COMPOSE["secrets"].values()} == {"secrets"}


# -- what is mounted --------------------------------------------------------------------------------------------------


def test_every_mounted_file_is_there() -> None:
    assert len(mounts()) > 3
    assert [str(path) for path, _ in mounts() if not path.exists()] == []


def test_what_is_mounted_is_read_only() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert [volume for volume in volumes if volume.startswith(".") and not volume.endswith(":ro")] == []


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: apt-get install prometheus"
    argv = [promtool, "check", "config", str(OBSERVABILITY / "prometheus.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_its_files_where_they_are_mounted_and_scrapes_both_replicas() -> None:
    config = read(OBSERVABILITY / "prometheus.yaml")
    places = {target: path for path, target in mounts()}
    command = dict(word.split("=", 1) for word in SERVICES["prometheus"]["command"])
    assert places[command["--config.file"]] == DEPLOY / "./observability/prometheus.yaml"
    for rules in config["rule_files"]:
        assert places[f"/etc/prometheus/{rules}"].name == rules
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (found,) = jobs["drover"]["dns_sd_configs"]
    assert (found["names"], found["type"]) == (["drover"], "A")
    assert SERVICES["drover"]["ports"][0].endswith(f":{found['port']}")
    assert jobs["rabbitmq"]["static_configs"][0]["targets"][0].partition(":")[0] in SERVICES


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = OBSERVABILITY / "grafana" / "provisioning"
    (source,) = read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    (provider,) = read(provisioning / "dashboards" / "drover.yaml")["providers"]
    places = {target: path for path, target in mounts()}
    assert (places[provider["options"]["path"]] / "drover.json").exists()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/drover.json"


def test_grafana_shows_and_lets_nobody_in() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert (
        environment["GF_AUTH_DISABLE_LOGIN_FORM"] == environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    )
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
