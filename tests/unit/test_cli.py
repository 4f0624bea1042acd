"""The command line: exit codes, one clear sentence for what goes wrong, and nothing secret in it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli import run
from service.settings import FILES, variables

CANARY = "tr0ub4dor"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings; a terminal wide enough for a sentence."""
    for name in (*variables(), *FILES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, held for the test so that nobody begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, which is one line; nothing was printed."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("drover: ")
    assert printed.err.count("\n") == 1, printed.err
    assert "Traceback" not in printed.err
    return printed.err


# -- bad usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["submit", "--frobnicate"],
        ["submit", "--num-generations", "many"],
        ["submit", "--timeout", "soon"],
        ["submit", "--prompt"],
        ["submit", "surplus"],
        ["sandbox", "--port", "x"],
        ["config", "--json", "surplus"],
        ["cancel"],
        ["cancel", "not an id"],
        ["status", "not an id"],
        ["watch", "--interval", "0"],
        ["watch", "--status", "unheard-of"],
        ["doctor", "surplus"],
        ["completion", "unheard-of"],
        ["dead", "frobnicate"],
        ["dead", "list", "--limit", "0"],
        ["dead", "list", "surplus"],
        ["dead", "show"],
        ["dead", "show", "not an id"],
        ["dead", "replay"],
        ["dead", "replay", "--all", "--reason", "internal"],
        ["dead", "replay", "0123456789ab", "--all"],
        ["dead", "replay", "0123456789AB"],
        ["dead", "purge", "--yes"],
        ["migrate", "--force"],
        ["contracts", "surplus"],
    ],
)
def test_bad_usage_is_exit_code_2_and_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    one_sentence(capsys)


@pytest.mark.parametrize("parameter", ["num_frames", "=5", ""])
def test_a_parameter_must_be_name_and_value(parameter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--param", parameter]) == 2
    assert "--param takes name=value" in one_sentence(capsys)


def test_an_input_file_must_be_a_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    for name in ("list.json", "broken.json", "absent.json"):
        assert run(["submit", "--input", str(tmp_path / name)]) == 2
        assert "--input" in one_sentence(capsys)


def test_a_download_directory_that_cannot_be_made_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["submit", "--prompt", "x", "--download", str(tmp_path / "file" / "results")]) == 2
    assert "--download" in one_sentence(capsys)


# -- configuration ----------------------------------------------------------------------------------------------------


def test_serve_without_a_key_says_which_variable_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve"]) == 2
    assert "OXEN_API_KEY is required" in one_sentence(capsys)


def test_a_wrong_setting_is_told_by_its_variable_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DROVER_AMQP_URL", f"amqp://u:{CANARY}/x@h/")
    for command in ("topology", "submit"):
        assert run([command]) == 2
        told = one_sentence(capsys)
        assert "DROVER_AMQP_URL" in told
        assert CANARY not in told


def test_config_lists_every_variable_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OXEN_API_KEY", CANARY)
    assert run(["config", "--json"]) == 0
    printed = capsys.readouterr().out
    rows = {row["variable"]: row for row in json.loads(printed)}
    assert set(rows) == {*variables(), *FILES}
    assert rows["OXEN_API_KEY"]["default"] == "required"
    assert rows["DROVER_HTTP_PORT"]["default"] == "8080"
    assert rows["DROVER_MIGRATE_ON_START"]["default"] == "true"
    assert rows["DROVER_API_TOKENS"]["default"] == rows["DROVER_MAX_IN_FLIGHT"]["default"] == "none"
    assert rows["DROVER_DATABASE_URL"]["default"] == "postgresql://127.0.0.1:5432/drover"
    assert all(row["meaning"] for row in rows.values())
    assert CANARY not in printed


def test_config_lists_every_variable_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OXEN_API_KEY", CANARY)
    assert run(["config"]) == 0
    printed = capsys.readouterr().out
    assert set(re.findall(r"(?:DROVER|OXEN)_[A-Z_]+", printed)) >= set(variables())
    assert CANARY not in printed


def test_config_says_what_the_environment_lacks_after_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert "OXEN_API_KEY is required" in printed.err


# -- servers that are away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--prompt", "x"],
        ["submit", "--prompt", "x", "--wait"],
        ["topology"],
        ["cancel", "r-1"],
        ["dead", "list"],
        ["dead", "show", "0123456789ab"],
        ["dead", "replay", "--all"],
        ["dead", "purge", "--all", "--yes", "--json"],
    ],
)
def test_without_a_broker_a_command_fails_with_one_sentence_and_no_password(
    arguments: list[str], closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DROVER_AMQP_URL", f"amqp://u:{CANARY}@127.0.0.1:{closed_port}/")
    assert run(arguments) == 1
    told = one_sentence(capsys)
    assert "RabbitMQ" in told
    assert CANARY not in told


def test_without_a_database_migrate_fails_with_one_sentence_and_no_password(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DROVER_DATABASE_URL", f"postgresql://u:{CANARY}@127.0.0.1:{closed_port}/db")
    assert run(["migrate"]) == 1
    told = one_sentence(capsys)
    assert "Postgres" in told
    assert CANARY not in told
    for command in ("status", "watch"):
        assert run([command]) == 1
        assert "Postgres" in one_sentence(capsys)


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["submit", "--help"], ["serve", "--help"], ["--version"]])
def test_help_is_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.strip()
    assert printed.err == ""


def test_the_sandboxs_help_says_where_its_faults_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    run(["sandbox", "--help"])
    assert "GET /sandbox/faults/schema" in " ".join(capsys.readouterr().out.split())


COMMANDS = [
    *(
        "serve",
        "migrate",
        "topology",
        "submit",
        "status",
        "watch",
        "cancel",
        "doctor",
        "sandbox",
        "config",
        "completion",
    ),
    *("dead list", "dead show", "dead replay", "dead purge"),
]
PRINT_DATA = [command for command in COMMANDS if command not in ("serve", "sandbox", "completion")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"] if " " not in command else ["dead", "--help"])
    assert re.search(rf"\b{command.rsplit(maxsplit=1)[-1]}\b", capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"^ .*drover {command}", printed, re.MULTILINE)


@pytest.mark.parametrize("command", PRINT_DATA)
def test_every_command_that_prints_data_speaks_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([*command.split(), "--help"])
    assert "--json" in capsys.readouterr().out


def test_help_says_what_a_command_does_although_none_is_imported_before_it_is_called() -> None:
    python = [sys.executable, "-c"]
    told = subprocess.run([*python, "from service.cli import main; main()"], capture_output=True, text=True, check=True)
    assert "Send generation requests" in " ".join(told.stdout.replace("│", " ").split())
    imported = "import sys; from service.cli import run; run(['--version']); print('service.app' in sys.modules)"
    light = subprocess.run([*python, imported], capture_output=True, text=True, check=True)
    assert light.stdout.splitlines()[-1] == "False"


def test_the_service_carries_nothing_to_draw_with_and_commands_that_draw_have_it() -> None:
    script = """
import sys
from service.cli import run
run(["serve"])  # as far as its settings, which it has not
print("service.app" in sys.modules)
print([name for name in sys.modules if name.partition(".")[0] in ("rich", "pygments")])
import service.cli.watch
print("rich.live" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout.splitlines() == ["True", "[]", "True"]
