"""Node's side of the tests: the locked npm packages, in .local/node; does nothing when they are there already."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.local.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKED = REPOSITORY / "tests" / "node"
FILES = ("package.json", "package-lock.json", ".npmrc")
FOLDER = REPOSITORY / ".local" / "node"
STAMP = FOLDER / "node_modules" / ".drover-installed"
OLDEST = 18  # Debian 12's, and what the locked packages need
INSTALL_TIMEOUT_S = 300


def fingerprint() -> str:
    """Of what an installation consists of."""
    content = hashlib.sha256()
    for name in FILES:
        content.update((LOCKED / name).read_bytes())
    return content.hexdigest()


def installed() -> bool:
    try:
        return STAMP.read_text() == fingerprint()
    except OSError:
        return False


def install() -> None:
    """`npm ci` of the lock file, without the packages' own scripts; raises StackError, with what to do."""
    if installed():
        return
    _check_version()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(LOCKED / name, FOLDER / name)
    print(f"installing the locked npm packages in {FOLDER.relative_to(REPOSITORY)} ...", flush=True)
    _npm("ci", "--ignore-scripts", "--no-progress")
    STAMP.write_text(fingerprint())  # inside node_modules, which `npm ci` begins by removing


def _check_version() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise StackError("Node and npm are missing: run `sudo apt-get install nodejs npm`")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.match(r"v(\d+)\.", said.stdout)
    if version is None or int(version[1]) < OLDEST:
        told = said.stdout.strip() or f"exit code {said.returncode}"
        raise StackError(f"Node {OLDEST} or later is needed, and {node} is {told}: put a later one first on the PATH")


def _npm(*arguments: str) -> None:
    try:
        done = subprocess.run(
            ["npm", *arguments],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT_S,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired as expired:
        raise StackError(
            f"`npm {arguments[0]}` took longer than {INSTALL_TIMEOUT_S} s: is the registry slow?"
        ) from expired
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-8:])
        raise StackError(f"`npm {' '.join(arguments)}` failed in {FOLDER}; it said:\n{last}")
