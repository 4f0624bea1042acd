"""Every setting, from the environment. Errors name the variable and what is wrong with it, never its value."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.domain.errors import ConfigurationError

SUBMIT_MARGIN_S = 5.0  # what a drain needs besides the longest POST
KEEP_ALIVE_S = 15.0  # the hub's
PREFIXES = ("DROVER_", "OXEN_")
# Each may come from a mounted file instead: the file's variable, and what it holds.
FILES = {
    f"{name}_FILE": name for name in ("OXEN_API_KEY", "DROVER_AMQP_URL", "DROVER_DATABASE_URL", "DROVER_API_TOKENS")
}
LONGEST_FILE = 65_536  # bytes: a hundred tokens, and not a device that never ends
LONGEST_TOKEN = 1024  # characters; a header has room for 8,190


def _url(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port
        except ValueError:  # its text quotes the URL, password and all
            raise ValueError("is not a URL; a password's special characters must be percent-encoded") from None
        if parts.scheme not in schemes:
            raise ValueError("must be a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes))
        if "https" in schemes and not parts.hostname:
            raise ValueError("must be a URL with a host")
        if "https" in schemes and (parts.username or parts.password or parts.query or parts.fragment):
            raise ValueError("must be a URL without user, password or query; what is secret goes into OXEN_API_KEY")
        return value

    return AfterValidator(check)


def _names(value: object) -> object:
    """A list separated by commas or lines; blanks around the names and empty names do not count."""
    if isinstance(value, str):
        return frozenset(name for part in re.split(r"[,\n]", value) if (name := part.strip()))
    return value


def _is_token(text: str) -> bool:
    """Whether a header can carry it (as UTF-8)."""
    return bool(text) and text.isprintable() and not any(map(str.isspace, text)) and len(text) <= LONGEST_TOKEN


class Settings(BaseSettings):
    """The service's settings; `drover config` prints them with their variables."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    api_key: SecretStr = Field(
        validation_alias="OXEN_API_KEY",
        description="Bearer token of the hub.",
    )
    base_url: Annotated[SecretStr, _url("http", "https")] = Field(
        SecretStr("https://hub.oxen.ai"), validation_alias="OXEN_BASE_URL", description="The hub."
    )
    amqp_url: Annotated[SecretStr, _url("amqp", "amqps")] = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        validation_alias="DROVER_AMQP_URL",
        description="RabbitMQ, amqp:// or amqps://.",
    )
    database_url: Annotated[SecretStr, _url("postgresql", "postgres")] = Field(
        SecretStr("postgresql://127.0.0.1:5432/drover"),
        validation_alias="DROVER_DATABASE_URL",
        description="Postgres, postgresql://.",
    )
    http_host: str = Field("127.0.0.1", validation_alias="DROVER_HTTP_HOST", description="Where health and API listen.")
    http_port: int = Field(8080, ge=0, le=65535, validation_alias="DROVER_HTTP_PORT", description="The port; 0: any.")
    api_tokens: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        repr=False,
        validation_alias="DROVER_API_TOKENS",
        description="Bearer tokens of the API, separated by commas or lines; without any, it answers on loopback only.",
    )
    migrate_on_start: bool = Field(
        default=True, validation_alias="DROVER_MIGRATE_ON_START", description="Apply migrations when `serve` starts."
    )
    log_format: Literal["json", "console"] | None = Field(
        None, validation_alias="DROVER_LOG_FORMAT", description="json or console; console on a terminal, else json."
    )
    shutdown_grace_s: float = Field(
        30,
        gt=0,
        validation_alias="DROVER_SHUTDOWN_GRACE_S",
        description="Seconds to drain on SIGTERM; at least the submit timeout and 5 more.",
    )
    reconcile_interval_s: float = Field(
        60,
        ge=1,
        validation_alias="DROVER_RECONCILE_INTERVAL_S",
        description="Seconds between sweeps for completions that were missed.",
    )
    stream_idle_timeout_s: float = Field(
        45,
        gt=0,
        validation_alias="DROVER_STREAM_IDLE_TIMEOUT_S",
        description="Seconds of silence after which the stream is dead; the hub's keep-alive comes every 15.",
    )
    submit_concurrency: int = Field(
        64, ge=1, le=1000, validation_alias="DROVER_SUBMIT_CONCURRENCY", description="POSTs at a time, each replica."
    )
    submit_rate_per_s: float | None = Field(
        None, gt=0, validation_alias="DROVER_SUBMIT_RATE_PER_S", description="POSTs a second, all replicas together."
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        validation_alias="DROVER_MAX_IN_FLIGHT",
        description="Generations at a time, all replicas together; a request for more than that goes alone.",
    )
    submit_timeout_s: float = Field(
        20, gt=0, validation_alias="DROVER_SUBMIT_TIMEOUT_S", description="Seconds for one POST."
    )
    doubt_grace_s: float = Field(
        15,
        ge=0,
        validation_alias="DROVER_DOUBT_GRACE_S",
        description="Seconds that the hub may take to show a generation it has accepted.",
    )
    target_namespaces: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        validation_alias="DROVER_TARGET_NAMESPACES",
        description="Comma-separated namespaces that requests may bill; none: the key's own alone.",
    )
    reply_to_pattern: re.Pattern[str] | None = Field(
        None,
        validation_alias="DROVER_REPLY_TO_PATTERN",
        description="Regular expression that a whole reply_to must match.",
    )
    default_deadline_s: float = Field(
        86_400,
        gt=0,
        le=315_360_000,
        validation_alias="DROVER_DEFAULT_DEADLINE_S",
        description="Seconds that a request may take which carries no deadline.",
    )
    retention_days: float = Field(
        30,
        gt=0,
        le=36_500,
        validation_alias="DROVER_RETENTION_DAYS",
        description="Days after which ended requests and published events go.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` hands over: it reads the environment, key file included, once."""
        return (init_settings,)

    @field_validator("api_tokens", "target_namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _names(value)

    @field_validator("api_key")
    @classmethod
    def _key_is_a_token(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not _is_token(text) or not text.isascii():
            raise ValueError(f"must be one word of at most {LONGEST_TOKEN} printable ASCII characters")
        return value

    @field_validator("api_tokens")
    @classmethod
    def _tokens_are_tokens(cls, value: frozenset[str]) -> frozenset[str]:
        if not all(map(_is_token, value)):
            raise ValueError(f"each must be one word of at most {LONGEST_TOKEN} printable characters")
        return value

    @model_validator(mode="after")
    def _grace_covers_a_post(self) -> Self:
        if self.shutdown_grace_s < self.submit_timeout_s + SUBMIT_MARGIN_S:
            raise ValueError(
                f"DROVER_SHUTDOWN_GRACE_S must be at least DROVER_SUBMIT_TIMEOUT_S + {SUBMIT_MARGIN_S:g}, or a POST "
                "could be cut off and become a doubt"
            )
        if self.stream_idle_timeout_s <= KEEP_ALIVE_S:
            raise ValueError("DROVER_STREAM_IDLE_TIMEOUT_S must be more than the hub's keep-alive of 15 s")
        return self


def variables() -> dict[str, str]:
    """Every variable with its description."""
    return {str(field.validation_alias): field.description or "" for field in Settings.model_fields.values()}


def load_settings(environment: Mapping[str, str] | None = None, *, hub: bool = True) -> Settings:
    """Reads the environment. ConfigurationError names every wrong variable, in one line each.

    `hub` False: for commands that never talk to the hub, and so need no key.
    """
    given = dict(os.environ if environment is None else environment)
    if not hub:
        given["OXEN_API_KEY"] = "unused"
    for variable, name in FILES.items():
        if given.get(variable) and not given.get(name):
            given[name] = _read_secret(variable, Path(given[variable]))
    values = {name: given[name] for name in variables() if given.get(name)}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_told(error)) from None  # the cause would carry the values


def _read_secret(variable: str, path: Path) -> str:
    """What the file holds. An empty one is a fault: a default in its place would be somebody else's server."""
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
        text = content.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path with a NUL
        reason = (error.strerror or "no reason given") if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{variable} cannot be read: {reason}.") from error
    if len(content) > LONGEST_FILE:
        raise ConfigurationError(f"{variable} cannot be read: the file is longer than {LONGEST_FILE:,} bytes.")
    if not text:
        raise ConfigurationError(f"{variable} cannot be read: the file is empty.")
    return text


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """DROVER_ and OXEN_ variables that nothing reads, each with the name that was probably meant."""
    known = {*variables(), *FILES}
    unknown: dict[str, str | None] = {}
    for name in sorted(os.environ if environment is None else environment):
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None or name in known or name.startswith("DROVER_LOCAL_"):
            continue
        suffixes = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]  # all share the prefix
        meant = difflib.get_close_matches(name.removeprefix(prefix), suffixes, 1)
        unknown[name] = prefix + meant[0] if meant else None
    return unknown


def _told(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "missing":
            lines.append(f"{name} is required: {variables()[name].removesuffix('.')}.")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}." if name else f"{message}.")
    return "\n".join(lines)
