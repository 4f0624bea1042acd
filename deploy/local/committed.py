"""Checks what is committed: no file names a package registry's host, or a folder of the machine it was written on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Written so that this file does not match itself.
REGISTRIES = re.compile(
    r"\b(?:pypi\.o[r]g|pythonhosted\.o[r]g|npmjs\.(?:o[r]g|c[o]m)|yarnpkg\.c[o]m|crates\.i[o]|golang\.o[r]g"
    r"|docker\.i[o]|ghcr\.i[o]|quay\.i[o]|deb\.debian\.o[r]g|archive\.ubuntu\.c[o]m)\b"
)
OUTSIDE_GIT = {".git", "node_modules", ".venv", ".local", ".hypothesis", "__pycache__", "dist", "build"}


def committed_files() -> Iterator[Path]:
    """What git tracks or would; every file where this is no clone, or git is not here."""
    git = shutil.which("git")
    if git:
        argv = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if listing.returncode == 0:
            yield from (REPOSITORY / name for name in listing.stdout.split("\0") if name)
            return
    for path in REPOSITORY.rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        if not any(part in OUTSIDE_GIT or part.endswith("_cache") or part.startswith(".coverage") for part in parts):
            yield path


def own_folders() -> set[str]:
    """This clone, what lies beside it, and a person's home; not what a container or a package could mean as well."""
    beside = {str(path) for path in REPOSITORY.parent.iterdir() if path.is_dir()} | {str(REPOSITORY)}
    candidates = beside | {str(Path.home())}
    return {folder for folder in candidates if len(Path(folder).parts) > 2}


def faults() -> Iterator[str]:
    """Each line that should not be there."""
    machine = re.compile("|".join(rf"(?<![\w.]){re.escape(folder)}\b" for folder in sorted(own_folders())) or "(?!)")
    for path in committed_files():
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if found := REGISTRIES.search(line) or machine.search(line):
                yield f"{path.relative_to(REPOSITORY)}:{number}: names {found.group()}"


def main() -> int:
    found = list(faults())
    for fault in found:
        print(f"committed: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
