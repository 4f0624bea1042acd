"""The documents say what the code does: settings, metrics and log events are explained, links lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.states import EventName, RequestState
from service.settings import FILES, variables
from service.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[2]
OPERATING = ROOT / "deploy" / "OPERATING.md"
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(page for top in ("contracts", "deploy", "tests") for page in (ROOT / top).rglob("*.md")),
    ]
    if "node_modules" not in path.parts and path.name != "model_page.md"  # the hub's own
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def log_events() -> Iterator[str]:
    """The names of every line that the service writes to its log."""
    for file in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log")), args=[ast.Constant(value=str() as name), *_]
                ):
                    yield name


def explained(text: str) -> set[str]:
    """What stands in backquotes at the beginning of a row of a table."""
    return {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_every_setting_is_explained_to_operators_and_nothing_that_is_none() -> None:
    found = {name for name in explained(OPERATING.read_text("utf-8")) if name.startswith(("DROVER_", "OXEN_"))}
    assert found == {*variables(), *FILES}


def test_every_metric_is_explained_and_nothing_that_is_none() -> None:
    metrics = {family.name for family in Metrics().registry.collect() if family.name.startswith("drover_")}
    names = (name.partition("{")[0] for name in explained(OPERATING.read_text("utf-8")))
    found = {name.removesuffix("_total") for name in names if name.startswith("drover_")}
    assert found == metrics


def test_every_line_of_the_log_is_explained_and_nothing_that_is_none() -> None:
    moves = {f"request.{state.value}" for state in RequestState} | {"request.output"}
    found = {name for name in explained(OPERATING.read_text("utf-8")) if re.fullmatch(r"[a-z]+\.[a-z_]+", name)}
    found -= {event.value for event in EventName}
    assert found - moves == set(log_events()) - moves


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_test_that_is_there(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} of {page.name}"
        if fragment.startswith("test_"):
            assert re.search(rf"def {fragment}\(", target.read_text("utf-8")), f"{link} of {page.name}"
        elif fragment and target.suffix == ".md":
            assert fragment in headings(target), f"{link} of {page.name}"


def headings(page: Path) -> set[str]:
    """As the usual renderers name them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
