"""What the machine has to have: finding it, and installing it from the distribution where that is allowed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.local.errors import StackError

POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTER_CONF = Path("/etc/postgresql-common/createcluster.d/drover.conf")
LISTS = Path("/var/lib/apt/lists")
LISTS_GOOD_FOR_S = 3600
APT_LOCK_S = 300
APT_ENV = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def may_install() -> bool:
    """Debian or a descendant, as root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str]) -> None:
    """Install Debian packages without letting them start services or create a system-wide database."""
    print(f"installing {', '.join(packages)} (apt) ...", flush=True)
    with _no_services(), _no_system_cluster():
        if not _lists_are_fresh():
            _apt("update")  # its failure shows in the next step, if it matters
        done = _apt("install", "-y", "--no-install-recommends", *packages)
        if done.returncode != 0:  # the lists may name versions that the mirror has dropped since
            _apt("update")
            done = _apt("install", "-y", "--no-install-recommends", *packages)
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-6:])
        raise StackError(f"apt-get could not install {' '.join(packages)}; it said:\n{last}")


def _lists_are_fresh() -> bool:
    """Whether `apt-get update` has just run; an image's own lists are older, or there are none."""
    newest = max((path.stat().st_ctime for path in LISTS.glob("*Packages*")), default=0.0)
    return time.time() - newest < LISTS_GOOD_FOR_S


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={APT_LOCK_S}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **APT_ENV},
    )


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Debian asks this script before a package starts its service; 101 means no."""
    with _temporary(POLICY, "#!/bin/sh\nexit 101\n", 0o755):
        yield


@contextlib.contextmanager
def _no_system_cluster() -> Iterator[None]:
    """Debian's postgresql creates a cluster of its own at installation unless told otherwise."""
    with _temporary(CLUSTER_CONF, "create_main_cluster = false\n", 0o644):
        yield


@contextlib.contextmanager
def _temporary(path: Path, text: str, mode: int) -> Iterator[None]:
    if path.exists():  # the machine's own rule stands
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
