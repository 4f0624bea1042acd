"""The npm packages of the tests: installed once, and one clear sentence where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import node
from deploy.local.errors import StackError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH besides the system's shell; what is installed goes to a folder of the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(node, "REPOSITORY", tmp_path)
    monkeypatch.setattr(node, "FOLDER", tmp_path / "node")
    monkeypatch.setattr(node, "STAMP", tmp_path / "node" / "node_modules" / "stamp")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_packages_are_installed_once_and_again_when_the_lock_file_changes(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "node", "echo v18.20.4")
    program(programs, "npm", 'echo "$@" >> calls && /bin/mkdir -p node_modules')
    node.install()
    node.install()
    assert (tmp_path / "node" / "calls").read_text() == "ci --ignore-scripts --no-progress\n"
    other = tmp_path / "locked"
    other.mkdir()
    for name in node.FILES:
        (other / name).write_text((node.LOCKED / name).read_text() + "\n")
    monkeypatch.setattr(node, "LOCKED", other)
    node.install()
    assert len((tmp_path / "node" / "calls").read_text().splitlines()) == 2


def test_a_missing_node_is_named_with_its_package(programs: Path) -> None:
    with pytest.raises(StackError, match="apt-get install nodejs npm"):
        node.install()


def test_an_old_node_is_named_with_its_version(programs: Path) -> None:
    program(programs, "node", "echo v16.20.2")
    program(programs, "npm", "exit 9")
    with pytest.raises(StackError, match=r"Node 18 or later is needed.*v16\.20\.2"):
        node.install()


def test_what_npm_says_is_quoted_and_nothing_counts_as_installed(programs: Path) -> None:
    program(programs, "node", "echo v22.1.0")
    program(programs, "npm", "echo no network >&2; exit 1")
    with pytest.raises(StackError, match="no network"):
        node.install()
    assert not node.installed()
