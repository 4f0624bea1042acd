"""What can be said of the Dockerfile, its context and its health check without building anything."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dockerfile import Ignored, Instruction, Stage, context, stages
from tests.support.ports import free_port
from tests.support.servers import REPOSITORY

DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
HEALTHCHECK = REPOSITORY / "deploy" / "healthcheck.py"
STAGES = stages(DOCKERFILE.read_text())
TARGETS = ("sandbox", "drover")
EXACT = re.compile(r"[a-z/]+:\d+\.\d+\.\d+-[a-z-]+(@sha256:[0-9a-f]{64})?")


def chain(name: str) -> list[Stage]:
    """The stage and those below it, the topmost first."""
    found = []
    while name in STAGES:
        found.append(STAGES[name])
        name = STAGES[name].base
    return found


def last(target: str, word: str) -> Instruction:
    """The instruction that holds for the target."""
    return next(stage.of(word)[-1] for stage in chain(target) if stage.of(word))


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (said.stdout + said.stderr, said.returncode) == ("", 0)


def test_the_one_base_is_pinned_to_an_exact_version_that_the_project_supports() -> None:
    named = list(STAGES)
    bases = [stage.base for at, stage in enumerate(STAGES.values()) if stage.base not in named[:at]]
    assert len(bases) == 1
    assert EXACT.fullmatch(bases[0])
    python = tuple(map(int, bases[0].removeprefix("python:").split(".")[:2]))
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python >= tuple(map(int, wanted.removeprefix(">=").split(".")))


def test_the_service_is_what_is_built_when_no_target_is_named() -> None:
    assert list(STAGES)[-1] == "drover"


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_a_number_that_is_not_root(target: str) -> None:
    user, group = STAGES[target].of("USER")[-1].text.split(":")
    assert int(user) > 999
    assert int(group) > 999


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_starts_without_a_shell_and_has_a_health_check_without_one(target: str) -> None:
    assert last(target, "ENTRYPOINT").argv == ["drover"]
    assert last(target, "CMD").argv
    assert last(target, "HEALTHCHECK").argv[0] == "python"


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_says_what_it_is(target: str) -> None:
    labels: dict[str, str] = {}
    for stage in reversed(chain(target)):
        for label in stage.of("LABEL"):
            labels |= label.pairs
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    arguments = {name: value for stage in chain(target) for arg in stage.of("ARG") for name, value in arg.pairs.items()}
    names = {name.removeprefix("org.opencontainers.image.") for name in labels}
    assert names == {"title", "description", "version", "revision", "licenses"}
    assert labels["org.opencontainers.image.version"] == "$VERSION"
    assert arguments["VERSION"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_no_step_writes_a_secret_into_a_layer() -> None:
    for stage in STAGES.values():
        for step in [*stage.of("ARG"), *stage.of("ENV")]:
            assert not re.search(r"KEY|TOKEN|PASSWORD|SECRET|URL", step.text), step.text


def test_every_package_is_checked_against_its_hash_and_comes_as_a_wheel() -> None:
    installs = [
        command
        for stage in STAGES.values()
        for step in stage.of("RUN")
        for command in step.text.split("&&")
        if re.search(r"\bpip\b.* install\b", command) and "--no-index" not in command
    ]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes --only-binary :all: --requirement deploy/lock/" in command


# -- the context ------------------------------------------------------------------------------------------------------


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    ignored = Ignored((REPOSITORY / ".dockerignore").read_text())
    copies = [step for stage in STAGES.values() for step in stage.of("COPY") if "from" not in step.flags]
    sources = [source for step in copies for source in step.text.split()[:-1]]
    let_in = list(context(REPOSITORY, ignored))
    assert [path for path in let_in if not any(path.is_relative_to(source) for source in sources)] == []
    assert [source for source in sources if not any(path.is_relative_to(source) for path in let_in)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        ".local/postgres.password",
        "node_modules/x/index.js",
        "deploy/secrets/oxen_api_key",
        "deploy/compose.yaml",
        "deploy/lock/dev.txt",
        "tests/conftest.py",
        "service/.env",
        "service/cli/.secret",
        "service/cli/__pycache__/serve.cpython-311.pyc",
        "service/serve.pyc",
    ],
)
def test_the_context_leaves_out(path: str) -> None:
    assert Path(path) in Ignored((REPOSITORY / ".dockerignore").read_text())


def test_the_reader_of_dockerignore_goes_by_the_last_pattern_that_matches() -> None:
    ignored = Ignored("# all\n*\n!a\n!b/c.txt\na/x*\n**/y\n")
    paths = ["a/1", "a/b/2", "a/x1", "a/y", "a/b/y/3", "b/c.txt", "b/d.txt", "c"]
    assert [path for path in paths if Path(path) not in ignored] == ["a/1", "a/b/2", "b/c.txt"]


def test_the_reader_of_dockerfiles_joins_lines_and_takes_flags_and_pairs_apart() -> None:
    text = "FROM a:1 AS b\n# no\nRUN --mount=type=x one \\\n    # no\n    && two\n"
    text += 'ENV A=1 \\\n    B="2 3"\nUSER 1:1\nCMD ["a"]'
    stage = stages(text)["b"]
    assert (stage.base, [step.word for step in stage.instructions]) == ("a:1", ["RUN", "ENV", "USER", "CMD"])
    assert (stage.of("RUN")[0].flags, stage.of("RUN")[0].text) == ({"mount": "type=x"}, "one && two")
    assert stage.of("ENV")[0].pairs == {"A": "1", "B": "2 3"}
    assert stage.of("CMD")[0].argv == ["a"]
    with pytest.raises(ValueError, match="ONBUILD is not understood here"):
        stages("FROM a:1\nONBUILD RUN x")


# -- the health check -------------------------------------------------------------------------------------------------


class Answering(http.server.BaseHTTPRequestHandler):
    """200 at /healthz, 503 elsewhere."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[str]:
    """Where that answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def checked(*arguments: str, **variables: str) -> tuple[int, str]:
    """The health check's exit code, and what it said."""
    command = [sys.executable, "-IS", str(HEALTHCHECK), *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DROVER_")}
    done = subprocess.run(command, env=inherited | variables, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.1"])  # noqa: S104 - a setting, nobody listens there
def test_healthy_is_what_answers_200_at_the_port_of_the_setting(port: str, host: str) -> None:
    assert checked(DROVER_HTTP_PORT=port, DROVER_HTTP_HOST=host) == (0, "")


def test_what_answers_something_else_is_not_healthy(port: str) -> None:
    assert checked(port, "/readyz") == (1, "/readyz answered 503\n")


def test_what_does_not_answer_is_not_healthy() -> None:
    port = str(free_port())
    code, said = checked(DROVER_HTTP_PORT=port)
    assert (code, said.startswith(f"port {port}: "), said.count("\n")) == (1, True, 1)
