"""The project's own programs as managed processes: the stand-in hub, and for the demo the service."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK
from deploy.local.process import Daemon

API_KEY = "sandbox-key"
START_TIMEOUT_S = 60


def http_status(url: str) -> int | None:
    """The status of a GET; None when nothing answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback
    try:
        with direct.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def command(venv: Path) -> str:
    """The installed `drover`."""
    drover = venv / "bin" / "drover"
    if not drover.exists():
        raise StackError("the project is not installed in .venv: run `make setup`")
    return str(drover)


class DroverProcess:
    """A `drover` command that runs until it is stopped and answers HTTP on `port` when it is ready."""

    def __init__(self, name: str, venv: Path, port: int, *, state: Path, probe: str) -> None:
        self.port = port
        self._venv = venv
        self._state = state
        self._probe = probe
        self._daemon = Daemon(name, state / "run" / f"{name}.pid", state / "log" / f"{name}.log")

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._daemon.pid

    def alive(self) -> bool:
        return self._daemon.alive()

    def answers(self) -> bool:
        return http_status(self.url + self._probe) == 200

    def launch(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it if it is down, and return when it is ready."""
        if not self.alive():
            self._daemon.start([command(self._venv), *arguments], env=env, cwd=self._state)
        self._daemon.wait_ready(self.answers, timeout=START_TIMEOUT_S)

    def tail(self) -> str:
        return self._daemon.tail()

    def stop(self, timeout: float = 10) -> bool:
        return self._daemon.stop(timeout=timeout)

    def kill(self) -> None:
        self._daemon.kill()


class SandboxServer(DroverProcess):
    """The stand-in hub."""

    def __init__(self, venv: Path, port: int, *, state: Path, name: str = "sandbox") -> None:
        super().__init__(name, venv, port, state=state, probe="/sandbox/count")

    def start(self, *options: str) -> None:
        self.launch(["sandbox", "--port", str(self.port), "--api-key", API_KEY, *options], os.environ)


class ServiceProcess(DroverProcess):
    """`drover serve` with the given settings and no others."""

    def __init__(self, venv: Path, port: int, *, state: Path, name: str = "service") -> None:
        super().__init__(name, venv, port, state=state, probe="/readyz")

    def start(self, env: Mapping[str, str]) -> None:
        self.launch(["serve"], {**env, "DROVER_HTTP_PORT": str(self.port)})
