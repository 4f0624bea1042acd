"""Settings: the contract's table, and errors that name the variable and never its value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.errors import ConfigurationError
from service.settings import FILES, LONGEST_FILE, LONGEST_TOKEN, Settings, load_settings, unknown_variables, variables

KEY = {"OXEN_API_KEY": "key-1"}
CANARY = "tr0ub4dor"

CONTRACT: dict[str, tuple[str, Any]] = {
    # variable: the field, its default
    "OXEN_BASE_URL": ("base_url", SecretStr("https://hub.oxen.ai")),
    "DROVER_AMQP_URL": ("amqp_url", SecretStr("amqp://guest:guest@127.0.0.1:5672/")),
    "DROVER_DATABASE_URL": ("database_url", SecretStr("postgresql://127.0.0.1:5432/drover")),
    "DROVER_HTTP_HOST": ("http_host", "127.0.0.1"),
    "DROVER_HTTP_PORT": ("http_port", 8080),
    "DROVER_API_TOKENS": ("api_tokens", frozenset()),
    "DROVER_MIGRATE_ON_START": ("migrate_on_start", True),
    "DROVER_LOG_FORMAT": ("log_format", None),
    "DROVER_SHUTDOWN_GRACE_S": ("shutdown_grace_s", 30),
    "DROVER_RECONCILE_INTERVAL_S": ("reconcile_interval_s", 60),
    "DROVER_STREAM_IDLE_TIMEOUT_S": ("stream_idle_timeout_s", 45),
    "DROVER_SUBMIT_CONCURRENCY": ("submit_concurrency", 64),
    "DROVER_SUBMIT_RATE_PER_S": ("submit_rate_per_s", None),
    "DROVER_MAX_IN_FLIGHT": ("max_in_flight", None),
    "DROVER_SUBMIT_TIMEOUT_S": ("submit_timeout_s", 20),
    "DROVER_DOUBT_GRACE_S": ("doubt_grace_s", 15),
    "DROVER_TARGET_NAMESPACES": ("target_namespaces", frozenset()),
    "DROVER_REPLY_TO_PATTERN": ("reply_to_pattern", None),
    "DROVER_DEFAULT_DEADLINE_S": ("default_deadline_s", 86_400),
    "DROVER_RETENTION_DAYS": ("retention_days", 30),
}


def settings(**given: str) -> Settings:
    return load_settings({**KEY, **given})


def complaint(**given: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({**KEY, **given})
    assert caught.value.__cause__ is None, "a cause would carry the values"
    return str(caught.value)


def test_the_variables_are_those_of_the_contract() -> None:
    assert set(variables()) == {*CONTRACT, "OXEN_API_KEY"}


@pytest.mark.parametrize("variable", CONTRACT)
def test_each_variable_has_the_default_of_the_contract(variable: str) -> None:
    field, default = CONTRACT[variable]
    assert getattr(settings(), field) == default
    assert getattr(settings(**{variable: ""}), field) == default, "an empty variable is an absent one"


@pytest.mark.parametrize("variable", [*CONTRACT, "OXEN_API_KEY"])
def test_each_variable_has_a_description(variable: str) -> None:
    assert variables()[variable].endswith(".")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("OXEN_API_KEY", "k2", SecretStr("k2")),
        ("OXEN_BASE_URL", "http://127.0.0.1:9", SecretStr("http://127.0.0.1:9")),
        ("DROVER_AMQP_URL", "amqps://u:p%40@h/v", SecretStr("amqps://u:p%40@h/v")),
        ("DROVER_DATABASE_URL", "postgresql:///x?host=/tmp", SecretStr("postgresql:///x?host=/tmp")),
        ("DROVER_HTTP_HOST", "0.0.0.0", "0.0.0.0"),  # noqa: S104 - only read
        ("DROVER_HTTP_PORT", "0", 0),
        ("DROVER_API_TOKENS", " a, b ,,a ", frozenset({"a", "b"})),
        ("DROVER_MIGRATE_ON_START", "false", False),
        ("DROVER_LOG_FORMAT", "console", "console"),
        ("DROVER_SHUTDOWN_GRACE_S", "25", 25.0),
        ("DROVER_RECONCILE_INTERVAL_S", "1", 1.0),
        ("DROVER_STREAM_IDLE_TIMEOUT_S", "15.5", 15.5),
        ("DROVER_SUBMIT_CONCURRENCY", "1", 1),
        ("DROVER_SUBMIT_RATE_PER_S", "0.5", 0.5),
        ("DROVER_MAX_IN_FLIGHT", "7", 7),
        ("DROVER_SUBMIT_TIMEOUT_S", "25", 25.0),
        ("DROVER_DOUBT_GRACE_S", "0", 0.0),
        ("DROVER_TARGET_NAMESPACES", "studio", frozenset({"studio"})),
        ("DROVER_REPLY_TO_PATTERN", "a|b", re.compile("a|b")),
        ("DROVER_DEFAULT_DEADLINE_S", "60", 60.0),
        ("DROVER_RETENTION_DAYS", "0.5", 0.5),
    ],
)
def test_each_variable_is_read(variable: str, text: str, value: object) -> None:
    field = "api_key" if variable == "OXEN_API_KEY" else CONTRACT[variable][0]
    assert getattr(settings(**{variable: text}), field) == value


WRONG = [
    ("OXEN_API_KEY", f"{CANARY} {CANARY}"),
    ("OXEN_API_KEY", f"{CANARY}ä"),
    ("OXEN_API_KEY", f"{CANARY}\n"),
    ("OXEN_API_KEY", CANARY * LONGEST_TOKEN),
    ("DROVER_API_TOKENS", f"good,{CANARY} {CANARY}"),
    ("DROVER_API_TOKENS", f"good,{CANARY}\x7f"),
    ("DROVER_API_TOKENS", CANARY * LONGEST_TOKEN),
    ("OXEN_BASE_URL", f"{CANARY}"),
    ("OXEN_BASE_URL", f"ftp://{CANARY}@h"),
    ("OXEN_BASE_URL", "https://"),
    ("OXEN_BASE_URL", f"https://u:{CANARY}@h"),
    ("OXEN_BASE_URL", f"https://h/?key={CANARY}"),
    ("OXEN_BASE_URL", f"https://h:{CANARY}"),
    ("DROVER_AMQP_URL", f"http://u:{CANARY}@h/"),
    ("DROVER_AMQP_URL", f"amqp://u:{CANARY}@h:70000/"),
    ("DROVER_AMQP_URL", f"amqp://u:{CANARY}@[::zz]/"),
    ("DROVER_AMQP_URL", f"amqp://u:{CANARY}℀@h/"),
    ("DROVER_AMQP_URL", f"amqp://[{CANARY}/"),
    ("DROVER_DATABASE_URL", f"postgresql://u:{CANARY}/with-a-slash@h/db"),
    ("DROVER_DATABASE_URL", f"mysql://u:{CANARY}@h/db"),
    ("DROVER_HTTP_PORT", CANARY),
    ("DROVER_HTTP_PORT", "65536"),
    ("DROVER_HTTP_PORT", "-1"),
    ("DROVER_MIGRATE_ON_START", CANARY),
    ("DROVER_LOG_FORMAT", CANARY),
    ("DROVER_SHUTDOWN_GRACE_S", CANARY),
    ("DROVER_SHUTDOWN_GRACE_S", "inf"),
    ("DROVER_RECONCILE_INTERVAL_S", "0"),
    ("DROVER_RECONCILE_INTERVAL_S", "inf"),
    ("DROVER_STREAM_IDLE_TIMEOUT_S", "15"),
    ("DROVER_STREAM_IDLE_TIMEOUT_S", "nan"),
    ("DROVER_SUBMIT_CONCURRENCY", "0"),
    ("DROVER_SUBMIT_CONCURRENCY", "1.5"),
    ("DROVER_SUBMIT_RATE_PER_S", "0"),
    ("DROVER_MAX_IN_FLIGHT", "0"),
    ("DROVER_SUBMIT_TIMEOUT_S", "nan"),
    ("DROVER_DOUBT_GRACE_S", "-1"),
    ("DROVER_REPLY_TO_PATTERN", f"({CANARY}"),
    ("DROVER_DEFAULT_DEADLINE_S", "0"),
    ("DROVER_DEFAULT_DEADLINE_S", "1e12"),
    ("DROVER_RETENTION_DAYS", "0"),
    ("DROVER_RETENTION_DAYS", "1e9"),
]


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_a_wrong_value_is_told_by_its_variable_and_not_repeated(variable: str, value: str) -> None:
    told = complaint(**{variable: value})
    assert variable in told
    assert CANARY not in told
    assert told.count("\n") == 0


def test_every_wrong_variable_is_told_at_once_in_a_line_each() -> None:
    told = complaint(DROVER_HTTP_PORT="x", DROVER_LOG_FORMAT="y", OXEN_BASE_URL="z")
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "OXEN_BASE_URL",
        "DROVER_HTTP_PORT",
        "DROVER_LOG_FORMAT",
    ]


@pytest.mark.parametrize(
    ("grace", "timeout", "allowed"), [(30, 25, True), (30, 25.1, False), (5, 20, False), (25, 20, True)]
)
def test_the_grace_must_cover_the_longest_post_and_five_seconds(grace: float, timeout: float, allowed: bool) -> None:
    given = {"DROVER_SHUTDOWN_GRACE_S": str(grace), "DROVER_SUBMIT_TIMEOUT_S": str(timeout)}
    if allowed:
        assert settings(**given).shutdown_grace_s == grace
    else:
        assert "DROVER_SHUTDOWN_GRACE_S must be at least DROVER_SUBMIT_TIMEOUT_S + 5" in complaint(**given)


# -- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_required() -> None:
    with pytest.raises(ConfigurationError, match=r"^OXEN_API_KEY is required"):
        load_settings({})


def test_commands_that_never_talk_to_the_hub_need_no_key() -> None:
    load_settings({}, hub=False)


# -- secrets from files -----------------------------------------------------------------------------------------------

IN_FILES = {
    "OXEN_API_KEY": "from-a-file",
    "DROVER_AMQP_URL": "amqp://u:from-a-file@h/",
    "DROVER_DATABASE_URL": "postgresql://u:from-a-file@h/db",
    "DROVER_API_TOKENS": "from-a-file,second",
}
OTHERS = {
    "OXEN_API_KEY": "given",
    "DROVER_AMQP_URL": "amqp://u:given@h/",
    "DROVER_DATABASE_URL": "postgresql://u:given@h/db",
    "DROVER_API_TOKENS": "given",
}


def value_of(variable: str, **given: str) -> object:
    """What became of it, as it was written."""
    field = "api_key" if variable == "OXEN_API_KEY" else CONTRACT[variable][0]
    value = getattr(settings(**given) if variable != "OXEN_API_KEY" else load_settings(given), field)
    return value.get_secret_value() if isinstance(value, SecretStr) else ",".join(sorted(value))


@pytest.mark.parametrize("variable", IN_FILES)
def test_every_secret_may_be_read_from_a_mounted_file_and_the_plain_variable_wins(
    variable: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"\ufeff{IN_FILES[variable]}\r\n")
    in_file = {f"{variable}_FILE": str(tmp_path / "secret")}
    assert value_of(variable, **in_file) == IN_FILES[variable]
    assert value_of(variable, **in_file, **{variable: ""}) == IN_FILES[variable], "an empty variable is an absent one"
    assert value_of(variable, **in_file, **{variable: OTHERS[variable]}) == OTHERS[variable]
    unread = {f"{variable}_FILE": str(tmp_path / "absent"), variable: OTHERS[variable]}
    assert value_of(variable, **unread) == OTHERS[variable]


def test_these_are_all_the_secrets_there_are() -> None:
    assert set(FILES.values()) == set(IN_FILES)


def test_tokens_in_a_file_may_stand_in_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond, third\r\n\n")
    assert settings(DROVER_API_TOKENS_FILE=str(tmp_path / "tokens")).api_tokens == {"first", "second", "third"}


@pytest.mark.parametrize("variable", FILES)
def test_a_file_that_cannot_be_read_is_told_without_its_contents(variable: str, tmp_path: Path) -> None:
    """Above all no default is taken in its place."""
    (tmp_path / "binary").write_bytes(b"\xff" + CANARY.encode())
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "long").write_text(CANARY * LONGEST_FILE)
    for name in ("absent", ".", "binary", "empty", "long", "\0"):
        with pytest.raises(ConfigurationError, match=rf"^{variable} cannot be read: .+\.$") as caught:
            load_settings({variable: str(tmp_path / name)})
        assert CANARY not in str(caught.value)


def test_a_command_that_never_talks_to_the_hub_does_not_open_the_keys_file() -> None:
    load_settings({"OXEN_API_KEY_FILE": "/no/such/file"}, hub=False)


def test_what_a_file_holds_is_judged_as_the_variable_is(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"http://u:{CANARY}@h/")
    told = complaint(DROVER_AMQP_URL_FILE=str(tmp_path / "url"))
    assert told.startswith("DROVER_AMQP_URL: must be a URL")
    assert CANARY not in told


# -- what must not show -----------------------------------------------------------------------------------------------


def test_no_way_of_printing_settings_shows_a_secret() -> None:
    secret = settings(
        OXEN_API_KEY=CANARY,
        DROVER_AMQP_URL=f"amqp://u:{CANARY}@h/",
        DROVER_DATABASE_URL=f"postgresql://u:{CANARY}@h/db",
        DROVER_API_TOKENS=CANARY,
    )
    for printed in (repr(secret), str(secret), f"{secret}"):
        assert CANARY not in printed
    assert secret.api_tokens == {CANARY}


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().http_port = 1


# -- misspelt variables -----------------------------------------------------------------------------------------------


def test_a_variable_that_nothing_reads_is_told_with_what_was_meant() -> None:
    environment = {
        "DROVER_SUBMIT_CONCURENCY": "1",
        "DROVER_QQQ": "1",
        "DROVER_HTTP_PORT": "1",
        "DROVER_LOCAL_HOME": "1",
        "OXEN_BASEURL": "1",
        "OXEN_API_KEY_FILE": "1",
        "PATH": "1",
    }
    assert unknown_variables(environment) == {
        "DROVER_QQQ": None,
        "OXEN_BASEURL": "OXEN_BASE_URL",
        "DROVER_SUBMIT_CONCURENCY": "DROVER_SUBMIT_CONCURRENCY",
    }
