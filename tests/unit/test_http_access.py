"""Who may use the API, by the headers of a call."""

from __future__ import annotations

import pytest

from service.http.access import refusal

HERE = {"Host": "127.0.0.1:8080"}
TOKENS = ("first", "second-ü")


def status(method: str, headers: dict[str, str], *tokens: str, listens_on: str = "127.0.0.1") -> int | None:
    refused = refusal(method, headers, tokens=tokens, listens_on=listens_on)
    return None if refused is None else refused.status


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.0.0.1", "localhost"])
def test_without_tokens_a_loopback_host_is_served(host: str) -> None:
    assert status("DELETE", {"Host": host}) is None


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8080", "10.0.0.7:8080", "", "127.0.0.1.evil.test", "[::1"])
def test_without_tokens_no_other_name_is_served_so_rebinding_a_name_to_loopback_gains_nothing(host: str) -> None:
    assert status("GET", {"Host": host}) == 403


@pytest.mark.parametrize("listens_on", ["0.0.0.0", "::", "10.0.0.7", "drover.internal"])  # noqa: S104 - that is the point
def test_without_tokens_a_server_that_others_can_reach_serves_nobody(listens_on: str) -> None:
    assert status("GET", HERE, listens_on=listens_on) == 403


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_any_of_the_tokens_opens_wherever_the_server_listens(token: str, scheme: str) -> None:
    headers = {"Host": "drover.internal", "Authorization": f"{scheme} {token}"}
    assert status("DELETE", headers, *TOKENS, listens_on="10.0.0.7") is None


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer third", "Basic first", "first", "Bearer first x"]
)
def test_with_tokens_nothing_else_opens_not_even_on_loopback(given: str | None) -> None:
    headers = HERE if given is None else {**HERE, "Authorization": given}
    assert status("GET", headers, *TOKENS) == 401


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:9090", "file://", "http://[::1"])
def test_a_page_of_another_origin_changes_nothing_even_with_a_token(origin: str) -> None:
    headers = {**HERE, "Origin": origin, "Authorization": "Bearer first"}
    assert status("DELETE", headers, *TOKENS) == 403
    assert status("POST", headers) == 403


def test_a_page_of_another_site_that_names_no_origin_changes_nothing() -> None:
    assert status("DELETE", {**HERE, "Sec-Fetch-Site": "cross-site"}) == 403


def test_the_own_page_and_callers_that_are_no_browsers_may() -> None:
    assert status("DELETE", {**HERE, "Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}) is None
    assert status("DELETE", HERE) is None
