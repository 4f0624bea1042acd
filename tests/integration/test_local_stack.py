"""The local stack, on a throw-away instance: its commands as people run them, its classes as the chaos tests do."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.local import packages, postgres, rabbit
from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK, choose, is_free
from deploy.local.postgres import PostgresServer
from deploy.local.process import Daemon, start_time
from deploy.local.record import Record
from deploy.local.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "deploy" / "local" / "stack.py"
GIVEN = ("DROVER_AMQP_URL", "DROVER_DATABASE_URL", "DROVER_LOCAL_RABBIT_MANAGEMENT_URL")


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments, "--home", str(home)]


def bare_env(**more: str) -> dict[str, str]:
    """Without the servers of the test run, which would be used as they are."""
    return {name: value for name, value in os.environ.items() if name not in GIVEN} | more


def stack_command(
    home: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, *arguments),
        env=env or bare_env(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home as `mktemp -d` makes it, readable by its owner alone; wiped whatever happens."""
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    folder = Path(tempfile.mkdtemp(prefix="drover-stack-"))
    yield folder
    Stack(folder).wipe()
    shutil.rmtree(folder)


@pytest.fixture
def server(home: Path) -> Iterator[PostgresServer]:
    """A Postgres where its account can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="drover-postgres-"))
    server = PostgresServer(folder, choose(["postgres"], {})["postgres"], state=home)
    yield server
    server.stop()
    shutil.rmtree(folder)


def query(server: PostgresServer, sql: str) -> str:
    """Through psql, as a person would."""
    binaries = postgres.find_binaries()
    assert binaries is not None
    done = subprocess.run(
        [binaries / "psql", "-XqtA", server.url, "-c", sql], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_life_of_a_stack(home: Path) -> None:
    # Two at once: one waits for the other, both find it up.
    first = [
        subprocess.Popen(command(home, "up"), env=bare_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=100)[0].decode() for process in first]
    assert [process.returncode for process in first] == [0, 0], said
    stack = Stack(home)
    pids = stack.postgres.pid, stack.rabbit.pid
    folder = stack.postgres.folder
    if os.geteuid() == 0:  # its account cannot enter our folder, so the data had to go elsewhere, and we were told
        assert not folder.is_relative_to(home)
        assert any(str(folder) in text for text in said)
        assert folder.stat().st_uid == pwd.getpwnam(folder.owner()).pw_uid != 0
    else:
        assert folder.is_relative_to(home)

    query(stack.postgres, "create table kept (word text)")
    query(stack.postgres, "insert into kept values ('here')")
    stack.rabbit.create_vhost("kept")
    assert stack.rabbit.management("PUT", "/api/queues/kept/q", {"durable": True}) is not None
    settings = dict(
        line.removeprefix("export ").split("=", 1) for line in stack_command(home, "env").stdout.splitlines()
    )
    assert settings == {
        "DROVER_AMQP_URL": stack.rabbit.url,
        "DROVER_DATABASE_URL": stack.postgres.url,
        "DROVER_LOCAL_RABBIT_MANAGEMENT_URL": stack.rabbit.management_url,
    }

    # Up again, in the environment that `env` has made: the same servers, not somebody's given ones.
    again = stack_command(home, "up", env=bare_env(**settings))
    assert again.returncode == 0, again.stderr
    assert (Stack(home).postgres.pid, Stack(home).rabbit.pid) == pids

    assert stack_command(home, "down").returncode == 0
    assert stack_command(home, "down").returncode == 0
    assert all(pid and start_time(pid) is None for pid in pids)
    assert all(is_free(port) for port in stack.record.ports.values())
    assert stack_command(home, "status").returncode == 1
    assert stack_command(home, "env").returncode == 1

    # Somebody else has taken ports meanwhile: others are chosen and named, and nothing is lost.
    with (
        socket.create_server((LOOPBACK, stack.rabbit.ports.amqp)),
        socket.create_server((LOOPBACK, stack.postgres.port)),
    ):
        moved = stack_command(home, "up")
    assert moved.returncode == 0, moved.stderr
    assert moved.stdout.count("is taken by another program") == 2
    stack = Stack(home)
    assert query(stack.postgres, "select word from kept") == "here"
    assert stack.rabbit.management("GET", "/api/queues/kept/q") is not None

    # A crash is noticed, even where nobody reaps the dead process.
    stack.rabbit.kill()
    status = stack_command(home, "status")
    assert status.returncode == 1
    assert "rabbitmq: down" in status.stdout
    assert "postgres: up" in status.stdout

    assert stack_command(home, "wipe").returncode == 0
    assert not folder.exists()
    assert list(home.iterdir()) == []


def test_postgres_recovers_from_a_crash(server: PostgresServer) -> None:
    server.start()
    query(server, "create table kept (n int); insert into kept values (7)")
    assert query(server, "show fsync") == "on"
    assert query(server, "show max_connections") == "200"
    server.kill()
    assert not server.alive()
    assert not server.answers()
    server.start()
    assert query(server, "select n from kept") == "7"
    assert server.stop()
    assert not server.stop()


def test_postgres_does_not_take_a_half_made_folder_for_a_database(server: PostgresServer) -> None:
    (server.folder / "data.new").mkdir()
    (server.folder / "data.new" / "PG_VERSION").write_text("15\n")
    server.start()
    assert query(server, "select 1") == "1"


def test_what_is_missing_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "may_install", lambda: False)
    monkeypatch.setattr(postgres, "candidates", list)
    monkeypatch.setattr(rabbit, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(home))
    stack = Stack(home)
    with pytest.raises(StackError, match=r"apt-get install postgresql.*DROVER_DATABASE_URL"):
        stack.postgres.start()
    with pytest.raises(StackError, match=r"apt-get install rabbitmq-server.*DROVER_AMQP_URL"):
        stack.rabbit.start()
    with pytest.raises(StackError, match="is not installed"):
        stack.up()
    assert not stack.is_up()


def test_data_of_another_postgres_is_not_touched(server: PostgresServer) -> None:
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"made by Postgres 9.*stack\.py wipe"):
        server.start()


def test_given_servers_have_to_answer(home: Path) -> None:
    port = choose(["amqp"], {})["amqp"]
    done = stack_command(home, "up", env=bare_env(DROVER_AMQP_URL=f"amqp://u:secret@{LOOPBACK}:{port}/"))
    assert done.returncode == 1
    assert f"DROVER_AMQP_URL names {LOOPBACK}:{port}, which does not answer" in done.stderr
    assert "secret" not in done.stderr


def test_given_servers_are_used_as_they_are(home: Path, server: PostgresServer) -> None:
    server.start()
    with socket.create_server((LOOPBACK, 0)) as broker:  # amqps: a connection is all that can be asked of it here
        amqp = f"amqps://{LOOPBACK}:{broker.getsockname()[1]}/"
        given = bare_env(DROVER_AMQP_URL=amqp, DROVER_DATABASE_URL=server.url)
        assert stack_command(home, "up", env=given).returncode == 0
        said = stack_command(home, "env", env=given).stdout.splitlines()
        status = stack_command(home, "status", env=given)
    assert said == [f"export DROVER_AMQP_URL={amqp}", f"export DROVER_DATABASE_URL={server.url}"]
    assert status.returncode == 0
    assert status.stdout.count("given by the environment") == 2
    assert not (home / "run" / "rabbitmq.pid").exists()


def test_a_home_that_was_deleted_leaves_nothing_that_stands_in_the_way_of_the_next_at_its_place(home: Path) -> None:
    """A clone that is removed and cloned anew: where Postgres cannot enter it, its data were elsewhere."""
    with socket.create_server((LOOPBACK, 0)) as broker:
        given = bare_env(DROVER_AMQP_URL=f"amqps://{LOOPBACK}:{broker.getsockname()[1]}/")
        assert stack_command(home, "up", env=given).returncode == 0
        assert stack_command(home, "down", env=given).returncode == 0
        left_behind = Record.load(home).postgres_folder
        shutil.rmtree(home)
        home.mkdir(mode=0o700)
        again = stack_command(home, "up", env=given)
    if left_behind is not None:
        shutil.rmtree(left_behind)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_copied_home_does_not_act_on_the_original(home: Path, tmp_path: Path) -> None:
    Record(str(home), {"postgres": 1}).save()
    shutil.copytree(home, tmp_path / "copy")
    done = stack_command(tmp_path / "copy", "down")
    assert done.returncode == 1
    assert "is a copy of" in done.stderr


def test_a_pid_that_now_names_another_process_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "30"]) as bystander:
        (tmp_path / "pid").write_text(f"{bystander.pid} 1\n")  # started at another time than the file says
        daemon = Daemon("thing", tmp_path / "pid", tmp_path / "log")
        assert not daemon.alive()
        assert not daemon.stop()
        assert bystander.poll() is None
        bystander.send_signal(signal.SIGKILL)


def test_a_program_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    daemon = Daemon("thing", tmp_path / "pid", tmp_path / "log")
    daemon.start(["sh", "-c", "echo the reason; exit 3"], env=os.environ, cwd=tmp_path)
    with pytest.raises(StackError, match=r"thing ended while it was starting(.|\n)*the reason"):
        daemon.wait_ready(lambda: False, timeout=10)


def test_ports_differ_and_the_recorded_ones_are_kept() -> None:
    recorded = choose(["a", "b", "c"], {})
    assert len(set(recorded.values())) == 3
    assert choose(["a", "b", "c"], recorded) == recorded
    with socket.create_server((LOOPBACK, recorded["b"])):
        again = choose(["a", "b", "c"], recorded)
    assert again["a"] == recorded["a"]
    assert again["b"] != recorded["b"]
