"""Installs the project in .venv from the lock files; does nothing when that is what is there already."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local import kubectl, node, packages
from deploy.local.errors import StackError
from deploy.local.lock import project

REPOSITORY = Path(__file__).resolve().parents[2]
VENV = REPOSITORY / ".venv"
LOCKS = REPOSITORY / "deploy" / "lock"
STAMP = VENV / "drover-installed.json"

# The lock files of an installation; a wider one serves where a narrower one is asked for, and any of them for `demo`.
PROFILES = {"demo": ("demo", "build"), "dev": ("dev",), "bench": ("dev", "bench"), "audit": ("dev", "audit")}
# Programs of the tests, and the Debian packages they come in.
TOOLS = {"jq": "jq", "curl": "curl", "gawk": "gawk", "ffmpeg": "ffmpeg", "ffprobe": "ffmpeg"}
TOOLS |= {"node": "nodejs", "npm": "npm", "chromium": "chromium", "promtool": "prometheus", "prometheus": "prometheus"}
TOOLS |= {"pgbouncer": "pgbouncer"}


def fingerprint(profile: str) -> str:
    """Of what an installation of this profile consists of; the settings of linters and tests do not count."""
    settings = project()
    content = hashlib.sha256(json.dumps([settings["project"], settings["build-system"]]).encode())
    for name in PROFILES[profile]:
        content.update((LOCKS / f"{name}.txt").read_bytes())
    return content.hexdigest()


def installed(profile: str) -> bool:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    # A folder that was moved or copied still names its old place in every script.
    here = stamp.get("venv") == str(VENV) and (VENV / "bin" / "drover").exists()
    enough = [name for name, locks in PROFILES.items() if profile == "demo" or set(PROFILES[profile]) <= set(locks)]
    return here and any(stamp.get(name) == fingerprint(name) for name in enough)


def install(profile: str) -> None:
    """Make the virtual environment if it is not there or does not work, and install into it."""
    if not _works(VENV):
        _make_venv()
    STAMP.unlink(missing_ok=True)
    print(f"installing the locked packages ({profile}) in {VENV.name} ...", flush=True)
    _install_uv()
    locks = [argument for name in PROFILES[profile] for argument in ("-r", str(LOCKS / f"{name}.txt"))]
    _install(["--require-hashes", *locks])
    _install(["--no-deps", "--no-build-isolation", "--editable", str(REPOSITORY)])
    # Compiled once, here: uv leaves that to the first import, and that of every process where the environment forbids
    # to write it down (PYTHONDONTWRITEBYTECODE). Half of what a start takes.
    _run([_python(), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")])
    STAMP.write_text(json.dumps({"venv": str(VENV), profile: fingerprint(profile)}) + "\n")


def install_tools() -> None:
    """The programs that the tests run besides the project's own: Debian's, kubectl, and the npm packages."""
    missing = sorted({package for program, package in TOOLS.items() if shutil.which(program) is None})
    if missing and packages.may_install():
        packages.install(missing)
    elif missing:
        print(f"missing, so some tests will fail: run `sudo apt-get install {' '.join(missing)}`", file=sys.stderr)
    for what, install_them in (("the npm packages", node.install), ("kubectl", kubectl.install)):
        try:
            install_them()
        except (StackError, OSError) as error:
            print(f"without {what} some tests will fail: {error}", file=sys.stderr)


def _works(venv: Path) -> bool:
    python = venv / "bin" / "python"
    probe = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix != sys.argv[1])"
    return python.exists() and subprocess.run([python, "-c", probe, venv], check=False).returncode == 0


def _make_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:  # Debian keeps it in a package of its own
        package = f"python3.{sys.version_info.minor}-venv"
        if not packages.may_install():
            raise StackError(f"this Python cannot make virtual environments: run `sudo apt-get install {package}`")
        packages.install([package])
    print(f"making the virtual environment {VENV.name} (Python {sys.version.split()[0]}) ...", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def _install_uv() -> None:
    if not _has_pip():
        _run([_python(), "-m", "ensurepip", "--upgrade"])
    _run([_python(), "-m", "pip", "install", "-q", "--no-input", "--require-hashes", "-r", str(LOCKS / "uv.txt")])


def _has_pip() -> bool:
    """An environment that uv or a person has made may lack it."""
    return subprocess.run([_python(), "-c", "import pip"], check=False, capture_output=True).returncode == 0


def _install(arguments: Sequence[str]) -> None:
    """With uv, which is ten times quicker; with pip where uv fails, since pip alone knows the machine's own mirror."""
    uv = [str(VENV / "bin" / "uv"), "--no-config", "pip", "install", "-q", "--python", _python()]
    done = subprocess.run([*uv, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        print(f"uv failed, trying pip ({done.stderr.strip().splitlines()[-1:]})", file=sys.stderr)
        _run([_python(), "-m", "pip", "install", "-q", "--no-input", *arguments])


def _python() -> str:
    return str(VENV / "bin" / "python")


def _run(argv: Sequence[str]) -> None:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env)
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-8:])
        raise StackError(f"`{' '.join(argv)}` failed; it said:\n{last}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__)
    parser.add_argument("profile", choices=[*PROFILES, "tools"])
    options = parser.parse_args()
    try:
        if options.profile == "tools":
            install_tools()
        elif not installed(options.profile):
            install(options.profile)
    except (StackError, OSError) as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
