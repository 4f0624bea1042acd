"""The lock files, as an installer without a resolver of its own reads them."""

from __future__ import annotations

from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.local.lock import FOLDER

Wanted = set[tuple[str, str]]


def _locked(name: str) -> Wanted:
    """(package, extra) of a lock file, and (package, "") of each."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    pins = [Requirement(line.rstrip("\\ ").split(";")[0]) for line in lines if line[:1].isalnum()]
    return {(canonicalize_name(pin.name), extra) for pin in pins for extra in ("", *pin.extras)}


def _asked_for() -> dict[str, Wanted]:
    """For each package that is installed: what it wants of others besides the others themselves."""
    return {
        canonicalize_name(each.metadata["Name"]): {
            (canonicalize_name(wish.name), extra)
            for wish in map(Requirement, each.requires or ())
            if wish.marker is None or wish.marker.evaluate({"extra": ""})
            for extra in wish.extras
        }
        for each in distributions()
    }


@pytest.mark.parametrize("name", ["dev", "demo", "image", "service"])
def test_a_lock_names_the_extras_that_its_packages_want_of_each_other_without_which_pip_refuses_it(name: str) -> None:
    locked, asked_for = _locked(name), _asked_for()
    installed = {package for package, _ in locked} & asked_for.keys()
    assert "aiohttp" in installed
    wanted = {wish for package in installed for wish in asked_for[package]}
    assert wanted <= locked
