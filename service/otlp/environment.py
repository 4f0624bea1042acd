"""Whether traces are wanted, by OpenTelemetry's own variables; the SDK reads the rest of them itself."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from service.domain.errors import ConfigurationError
from service.tracing import UNTRACED, Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")  # the first one counts
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER = "OTEL_TRACES_EXPORTER"
DISABLED = "OTEL_SDK_DISABLED"
PROTOCOL = "http/protobuf"


def collector(environment: Mapping[str, str]) -> str | None:
    """The host, and the port if it is named, that traces go to; None when they go nowhere. ConfigurationError for what
    asks for traces in a way that does not work here."""
    name = next((name for name in ENDPOINTS if environment.get(name)), None)
    exporter = environment.get(EXPORTER, "").strip().lower() or "otlp"
    if name is None or exporter == "none" or environment.get(DISABLED, "").strip().lower() == "true":
        return None
    if exporter != "otlp":
        raise ConfigurationError(f"{EXPORTER}: drover sends traces by otlp alone; set it to otlp or none, or unset it.")
    asked = next((other for other in PROTOCOLS if environment.get(other)), None)
    if asked is not None and environment[asked].strip().lower() != PROTOCOL:
        raise ConfigurationError(
            f"{asked}: drover sends traces over {PROTOCOL} alone; set it so or unset it, and {name} to the collector's "
            "HTTP port, which is usually 4318."
        )
    return _address(name, environment[name])


def _address(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text quotes the URL
        raise ConfigurationError(f"{name}: is not a URL.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{name}: must be a URL that begins with http:// or https://, and has a host.")
    return host if port is None else f"{host}:{port}"


def tracing_of(environment: Mapping[str, str], *, holder: str, hub: str) -> Tracing:
    """What the variables ask for; `holder` names this replica, `hub` is the hub's URL. ConfigurationError.

    The SDK reads the process's own environment, whatever is handed in here.
    """
    address = collector(environment)
    if address is None:
        return UNTRACED
    try:
        from service.otlp.sender import Sender  # noqa: PLC0415 - 0.3 s, and an extra
        from service.otlp.tracer import OtlpTracing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Traces are asked for (OTEL_EXPORTER_OTLP_ENDPOINT), but what sends them is not installed: "
            f"pip install 'drover[tracing]', or unset the variable. Missing: {error.name}."
        ) from error
    try:
        sender = Sender(address, holder=holder)
    except ValueError as error:  # a limit that is no number, which the SDK reads at once
        raise ConfigurationError(f"The OTEL_ variables cannot be used as they are: {error}") from None
    return OtlpTracing(sender, hub=urlsplit(hub).hostname or "")
