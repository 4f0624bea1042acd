"""What is written to `contracts/`, how it is read again, and what the command says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from service.cli import run
from service.contracts.documents import differences, texts, values

COMMITTED = Path(__file__).parents[2] / "contracts"


def test_every_document_is_read_as_it_was_built() -> None:
    built = values()
    for path, text in texts().items():
        assert (yaml.safe_load(text) if path.endswith(".yaml") else json.loads(text)) == built[path]


def test_differences_are_named() -> None:
    found = {
        "asyncapi.yaml": "x",
        "schemas/a.json": "{}",
        "schemas/old.json": "{}",
        "README.md": "#",
        "released/v1/a.json": "",
    }
    wanted = {"asyncapi.yaml": "y", "schemas/a.json": "{}", "examples/b.json": "{}"}
    assert differences(wanted, found) == [
        "asyncapi.yaml: differs",
        "examples/b.json: is missing",
        "schemas/old.json: is generated from nothing any more",
    ]


# -- the command ------------------------------------------------------------------------------------------------------


def test_what_is_committed_is_what_would_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["contracts", "--check", "--out", str(COMMITTED)]) == 0, capsys.readouterr().out


def test_without_options_the_documents_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["contracts"]) == 0
    assert capsys.readouterr().out.split() == list(texts())
    assert run(["contracts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"documents": list(texts()), "written": False}


def test_what_was_written_is_as_it_should_be_until_it_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "contracts"
    assert run(["contracts", "--out", str(folder)]) == 0
    assert run(["contracts", "--out", str(folder), "--check"]) == 0
    capsys.readouterr()
    (folder / "asyncapi.yaml").write_text("asyncapi: 2.0.0\n")
    (folder / "schemas" / "generation.cancel.json").unlink()
    (folder / "examples" / "stray.json").write_text("{}")
    assert run(["contracts", "--out", str(folder), "--check"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == [
        f"{folder}/asyncapi.yaml: differs",
        f"{folder}/examples/stray.json: is generated from nothing any more",
        f"{folder}/schemas/generation.cancel.json: is missing",
    ]
    assert run(["contracts", "--out", str(folder), "--check", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["differences"]) == 3
    assert run(["contracts", "--out", str(folder)]) == 0
    assert not (folder / "examples" / "stray.json").exists()
    assert run(["contracts", "--out", str(folder), "--check"]) == 0


def test_a_folder_that_cannot_be_written_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["contracts", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("drover: Cannot write to ")
