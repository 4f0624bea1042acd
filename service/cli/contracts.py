"""The contract's documents: to be listed, written, or held against what is committed."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from rich.console import Console

from service.contracts.documents import GENERATED, differences, texts
from service.domain.errors import ConfigurationError

DEFAULT_FOLDER = Path("contracts")


def contracts(*, out: Path | None = None, check: bool = False, json: bool = False) -> int:
    """List the contract's documents: AsyncAPI, the JSON Schema of each message, examples. Or write or check them.

    Needs neither broker nor database: what it writes follows from this version of the service alone.

    Parameters
    ----------
    out
        Write every document into this folder; with --check, the folder to look at.
    check
        Write nothing; exit code 1 when a file in the folder (`contracts` unless --out says otherwise) is not as it
        would be written, and name it.
    json
        Print what was listed, written or found as JSON.
    """
    documents = texts()
    if check:
        return _check(documents, out or DEFAULT_FOLDER, json=json)
    if out is not None:
        _write(documents, out)
    if json:
        Console().print_json(jsonlib.dumps({"documents": list(documents), "written": out is not None}))
    elif out is not None:
        _say(f"{len(documents)} documents written to {out}.")
    else:
        for path in documents:
            _say(path)
    return 0


def _check(documents: dict[str, str], folder: Path, *, json: bool) -> int:
    found = differences(documents, _read(documents, folder))
    if json:
        Console().print_json(jsonlib.dumps({"differences": found}))
    else:
        for difference in found:
            _say(f"{folder}/{difference}")
        _say(
            "Write them anew with `make contracts`." if found else f"{len(documents)} documents are as they should be."
        )
    return 1 if found else 0


def _read(documents: dict[str, str], folder: Path) -> dict[str, str]:
    """What of the documents is there, and what else is in the folders that hold nothing else."""
    strays = [path for name in GENERATED for path in (folder / name).glob("*")]
    paths = [*(folder / path for path in documents), *strays]
    try:
        return {str(path.relative_to(folder).as_posix()): path.read_text("utf-8") for path in paths if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read {folder} ({error}).") from error


def _write(documents: dict[str, str], folder: Path) -> None:
    """All of them; what was generated before and is not any more goes."""
    try:
        for path, text in documents.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        for name in GENERATED:
            for file in (folder / name).glob("*"):
                if f"{name}/{file.name}" not in documents:
                    file.unlink()
    except OSError as error:
        raise ConfigurationError(f"Cannot write to {folder} ({error.strerror}); choose another --out.") from error


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)
