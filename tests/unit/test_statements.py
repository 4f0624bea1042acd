"""The named SQL: each name once, each statement used, each use of a name that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import service
from service.postgres.statements import NAME, statements

SERVICE = Path(service.__file__).parent
SQL = sorted((SERVICE / "postgres" / "sql").glob("*.sql"))


def literals(*folders: str) -> set[str]:
    """Every string that the code writes out."""
    return {
        node.value
        for folder in folders
        for file in (SERVICE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def fetched() -> set[str]:
    """The names that adapters ask the database for."""
    return {
        node.args[0].value
        for file in (SERVICE / "postgres").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("fetch", "fetchval")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        and node.args[0].value.isidentifier()
    }


def test_no_two_statements_share_a_name() -> None:
    found = [name for file in SQL for name in NAME.findall(file.read_text("utf-8"))]
    assert len(found) == len(set(found)) == len(statements()) > 0


@pytest.mark.parametrize("name", sorted(statements()))
def test_each_statement_is_used(name: str) -> None:
    assert name in literals("postgres", "workers")


def test_each_name_that_is_asked_for_exists() -> None:
    assert fetched()
    assert fetched() <= set(statements())


@pytest.mark.parametrize("name", sorted(statements()))
def test_each_statement_is_one_statement_with_its_arguments_in_a_row(name: str) -> None:
    text = re.sub(r"--.*", "", statements()[name]).strip()
    assert text
    assert ";" not in text.removesuffix(";")
    numbers = {int(number) for number in re.findall(r"\$(\d+)", text)}
    assert numbers == set(range(1, len(numbers) + 1))


@pytest.mark.parametrize("file", SQL, ids=lambda file: file.name)
def test_nothing_stands_before_the_first_name_of_a_file(file: Path) -> None:
    assert file.read_text("utf-8").lstrip().startswith("-- name: ")
