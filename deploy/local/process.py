"""A detached process that is known by its pid file alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.local.errors import StackError

POLL_S = 0.02
TAIL_LINES = 8
KILL_TIMEOUT_S = 10

# Children of this very process have to be reaped here, or they stay behind as zombies (chaos tests start and kill).
_children: dict[int, subprocess.Popen[bytes]] = {}


def start_time(pid: int) -> str | None:
    """When the process began, in ticks since boot; None when it does not run.

    The pid alone does not identify a process: after a reboot a stale pid file names somebody else's.
    A zombie counts as gone, since not every PID 1 reaps.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may hold blanks and parentheses
    return None if fields[0] in "ZX" else fields[19]


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


class Daemon:
    """Starts a program in a session of its own, so that it outlives the command and holds none of its pipes."""

    def __init__(self, name: str, pid_file: Path, log_file: Path) -> None:
        self.name = name
        self.pid_file = pid_file
        self.log_file = log_file

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        try:
            pid, _, started = self.pid_file.read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        if not pid.isdigit():  # the machine went down while it was being written
            return None
        child = _children.get(int(pid))
        if child is not None and child.poll() is not None:
            del _children[int(pid)]
        return int(pid) if started and start_time(int(pid)) == started else None

    def alive(self) -> bool:
        return self.pid is not None

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, account: tuple[int, int] | None = None
    ) -> None:
        """Start it; `account` is the (uid, gid) to become."""
        if self.alive():
            raise StackError(f"{self.name} already runs (pid {self.pid})")
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                user=account[0] if account else None,
                group=account[1] if account else None,
                extra_groups=[] if account else None,
            )
        _children[child.pid] = child
        written = self.pid_file.with_suffix(".new")
        written.write_text(f"{child.pid} {start_time(child.pid)}\n")
        written.replace(self.pid_file)

    def wait_ready(self, answers: Callable[[], bool], *, timeout: float) -> None:
        """Return once `answers` says so; raise when the process ends or the time is over."""
        give_up = time.monotonic() + timeout
        while not answers():
            if not self.alive():
                raise StackError(f"{self.name} ended while it was starting; {self.log_file} ends:\n{self.tail()}")
            if time.monotonic() > give_up:
                raise StackError(
                    f"{self.name} runs but did not answer within {timeout:.0f} s; {self.log_file} ends:\n{self.tail()}"
                )
            time.sleep(POLL_S)

    def stop(self, *, first: signal.Signals = signal.SIGTERM, timeout: float = 30) -> bool:
        """Ask it to end, insist after `timeout`; say whether there was anything to stop."""
        if not self._signal(first):
            self.pid_file.unlink(missing_ok=True)
            return False
        if not self._gone(timeout):
            self.kill()
        self.pid_file.unlink(missing_ok=True)
        return True

    def kill(self) -> None:
        """SIGKILL to it and its children, and wait until they are gone: ports and files are free afterwards."""
        pid = self.pid
        if pid is None:
            return
        family = [pid, *_children_of(pid)]
        self._signal(signal.SIGKILL)
        for child in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        give_up = time.monotonic() + KILL_TIMEOUT_S
        while self.alive() or any(start_time(member) for member in family[1:]):
            if time.monotonic() > give_up:
                raise StackError(f"{self.name} (pid {pid}) does not end even on SIGKILL: look at the machine's log")
            time.sleep(POLL_S)

    def tail(self) -> str:
        """The end of its log, for error messages."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "  (empty)"
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (empty)"

    def _signal(self, number: signal.Signals) -> bool:
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            raise StackError(f"{self.name} (pid {pid}) belongs to another user: stop it as that user") from error
        return True

    def _gone(self, timeout: float) -> bool:
        give_up = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > give_up:
                return False
            time.sleep(POLL_S)
        return True
