"""Verdicts about the settings, before anything is connected to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from service.cli.doctor.check import Check, fault, ok, warning
from service.domain.errors import ConfigurationError
from service.otlp.environment import collector
from service.settings import FILES, Settings, load_settings, unknown_variables


def judge_settings(environment: Mapping[str, str]) -> tuple[list[Check], Settings | None, bool]:
    """The verdicts; the settings, None when even those that need no key are wrong; whether the hub's can be used."""
    checks, settings, with_key = list[Check](), None, True
    try:
        settings = load_settings(environment)
    except ConfigurationError as error:
        with_key = False
        checks += [fault("settings", line, _remedy(line)) for line in str(error).splitlines()]
        settings = _without_key(environment)
    if with_key:
        checks.append(ok("settings", "Every setting can be read."))
    for name, meant in unknown_variables(environment).items():
        remedy = f"Did you mean {meant}?" if meant else "Remove it; `drover config` lists what there is."
        checks.append(warning("settings", f"Nothing reads {name}.", remedy))
    checks += _traces(environment)
    for name, held in FILES.items():
        if environment.get(name) and environment.get(held):
            checks.append(warning("settings", f"{name} is not read, since {held} is set.", "Unset one of the two."))
    if settings is not None:
        checks += _risks(settings)
    return checks, settings, with_key


def _traces(environment: Mapping[str, str]) -> list[Check]:
    try:
        address = collector(environment)
    except ConfigurationError as error:
        return [fault("settings", str(error), "Or unset OTEL_EXPORTER_OTLP_ENDPOINT: then there are no traces.")]
    return [] if address is None else [ok("settings", f"Traces go to {address}.")]


def _without_key(environment: Mapping[str, str]) -> Settings | None:
    try:
        return load_settings(environment, hub=False)
    except ConfigurationError:
        return None


def _remedy(line: str) -> str:
    if line.startswith("OXEN_API_KEY is required"):
        return "export OXEN_API_KEY=..., or OXEN_API_KEY_FILE=/path/of/a/file/with/the/key/alone."
    if (variable := line.split(" ", 1)[0]) in FILES:
        return (
            f"Let it name a file that this user may read, with {FILES[variable]} alone in it; or set that one itself."
        )
    return "Set it so; `drover config` lists every setting with its meaning and default."


def _risks(settings: Settings) -> list[Check]:
    found = []
    if not _is_loopback(settings.http_host) and not settings.api_tokens:
        found.append(
            warning(
                "settings",
                f"The HTTP server listens on {settings.http_host} without DROVER_API_TOKENS: its API answers 403.",
                "Set DROVER_API_TOKENS, or DROVER_HTTP_HOST=127.0.0.1. Health and metrics need neither.",
            )
        )
    for variable, url, safe in (
        ("OXEN_BASE_URL", settings.base_url, "https"),
        ("DROVER_AMQP_URL", settings.amqp_url, "amqps"),
    ):
        if _in_the_clear(url, safe):
            found.append(
                warning(
                    "settings",
                    f"{variable} sends its secret unencrypted to a host that is neither this one nor a private one.",
                    f"Use {safe}://.",
                )
            )
    return [*found, *_unverified(settings)]


def _unverified(settings: Settings) -> Iterator[Check]:
    """Servers elsewhere whose certificates nobody looks at: whoever is on the way can be them."""
    broker, database = (urlsplit(url.get_secret_value()) for url in (settings.amqp_url, settings.database_url))
    if parse_qs(broker.query).get("no_verify_ssl", ["0"]) != ["0"]:
        yield warning(
            "settings",
            "DROVER_AMQP_URL switches the verification of the broker's certificate off (no_verify_ssl).",
            "Take it out; a private CA's file goes into cafile=.",
        )
    query = parse_qs(database.query)
    mode = query.get("sslmode", [os.environ.get("PGSSLMODE", "prefer")])[-1]
    hosts = ",".join(query.get("host", [database.hostname or "localhost"])).split(",")
    if mode != "verify-full" and not all(host.startswith("/") or _is_near(host) for host in hosts):
        yield warning(
            "settings",
            f"DROVER_DATABASE_URL does not verify the server (sslmode is {mode}), and its host is neither this one nor "
            "a private one.",
            "Use sslmode=verify-full, with the file of its CA as sslrootcert=.",
        )


def _in_the_clear(url: SecretStr, safe: str) -> bool:
    parts = urlsplit(url.get_secret_value())
    return parts.scheme != safe and not _is_near(parts.hostname or "localhost")


def _is_near(host: str) -> bool:
    """This machine, or one of a network of the operator's own."""
    named_inside = "." not in host and ":" not in host  # a container's or a cluster's own name
    return named_inside or _is_loopback(host) or _is_private(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_private(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".internal", ".svc"))
