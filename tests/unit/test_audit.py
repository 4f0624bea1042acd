"""The audit tells what is vulnerable from what could not be looked up, and calls neither clean.

The outputs are pip-audit 2.10's own: of two packages with a mirror between it and the service; with a service of the
OSV kind that knows one (made-up) vulnerability, or none; and with none at all.
"""

from __future__ import annotations

import pytest

from deploy.local.audit import CLEAN, FAILED, UNASKED, Verdict, judge, told, unreached

VULNERABLE = (
    '{"dependencies": [{"name": "aiohttp", "version": "3.14.5", "vulns": [{"id": "CVE-0000-0000", "fix_versions": '
    '["99.0.0"], "aliases": ["GHSA-0000-0000-0000"], "description": "made up"}]}, {"name": "attrs", "version": '
    '"26.1.0", "vulns": []}], "fixes": []}'
)
CLEAN_OUTPUT = (
    '{"dependencies": [{"name": "aiohttp", "version": "3.14.5", "vulns": []}, {"name": "attrs", "version": "26.1.0", '
    '"vulns": []}], "fixes": []}'
)
UNREACHABLE = (
    '{"dependencies": [{"name": "aiohttp", "skip_reason": "Dependency not found on PyPI and could not be audited: '
    'aiohttp (3.14.5)"}, {"name": "attrs", "skip_reason": "Dependency not found on PyPI and could not be audited: '
    'attrs (26.1.0)"}], "fixes": []}'
)
REFUSED = (
    "requests.exceptions.ConnectionError: HTTPConnectionPool(host='127.0.0.1', port=1): Max retries exceeded with url: "
    "/v1/query (Caused by NewConnectionError(...: [Errno 111] Connection refused'))"
)
PARTLY = VULNERABLE.replace('"version": "26.1.0", "vulns": []', '"skip_reason": "not found"')


@pytest.mark.parametrize(
    ("output", "code"),
    [(VULNERABLE, FAILED), (CLEAN_OUTPUT, CLEAN), (UNREACHABLE, UNASKED), (PARTLY, FAILED)],
)
def test_each_outcome_has_its_exit_code(output: str, code: int) -> None:
    verdict = judge(output)
    assert verdict is not None
    assert verdict.code == code


def test_a_vulnerability_is_told_with_its_package_and_what_mends_it() -> None:
    verdict = judge(VULNERABLE)
    assert verdict == Verdict(2, ("aiohttp 3.14.5: CVE-0000-0000 (mended in 99.0.0)",))
    assert "VULNERABLE: aiohttp 3.14.5: CVE-0000-0000" in told("image.txt", verdict)


def test_what_could_not_be_looked_up_is_never_called_clean() -> None:
    verdict = judge(UNREACHABLE)
    assert verdict is not None
    assert (verdict.asked, verdict.unasked) == (0, ("aiohttp", "attrs"))
    said = told("image.txt", verdict)
    assert said.startswith("image.txt: NOT AUDITED: 2 of 2 packages")
    assert "0 known" not in said


def test_a_part_that_could_not_be_looked_up_does_not_hide_what_was() -> None:
    verdict = judge(PARTLY)
    assert verdict is not None
    said = told("dev.txt", verdict)
    assert ("NOT AUDITED: 1 of 2" in said, "VULNERABLE" in said, "1 packages looked up" in said) == (True, True, True)


@pytest.mark.parametrize("output", ["", "Traceback ...", "[]", '{"fixes": []}'])
def test_no_output_is_no_verdict(output: str) -> None:
    assert judge(output) is None


def test_a_service_that_is_away_is_told_from_a_tool_that_fails() -> None:
    verdict = unreached(f"Traceback (most recent call last):\n{REFUSED}\n")
    assert verdict is not None
    assert (verdict.code, "NOT AUDITED" in told("image.txt", verdict)) == (UNASKED, True)
    assert unreached("ERROR:pip_audit._cli:invalid requirements input") is None


def test_a_file_without_packages_is_not_clean() -> None:
    verdict = judge('{"dependencies": [], "fixes": []}')
    assert verdict is not None
    assert (verdict.code, "NOT AUDITED" in told("image.txt", verdict)) == (UNASKED, True)
