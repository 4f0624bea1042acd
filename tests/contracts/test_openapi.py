"""The HTTP API against its own document: everything it allows and forbids is sent, and every answer held to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from openapi_spec_validator import validate

from service.contracts import openapi
from service.sandbox import Sandbox
from tests.support.api import Api
from tests.support.replica import environment, running

DOCUMENT = Path("contracts/openapi.yaml")
# A document cannot say what a model takes, so what it allows may be refused for that; and to cancel is not to delete.
NOT_MEANT = "positive_data_acceptance,use_after_free"


@pytest_asyncio.fixture
async def url(amqp_url: str, database_url: str, hub: Sandbox) -> AsyncIterator[str]:
    async with running(environment(amqp_url, database_url, hub.url)) as app:
        yield f"http://127.0.0.1:{app.http.port}"


def test_the_document_is_one_of_openapi_3_1() -> None:
    validate(openapi.document())


@pytest.mark.asyncio
async def test_it_is_served_as_it_is_committed(url: str) -> None:
    async with Api(url) as api:
        served = await api.get("/openapi.json")
    assert (served.status, served.kind, served.document) == (200, "application/json", openapi.document())


@pytest.mark.asyncio
async def test_no_call_breaks_it_or_is_answered_otherwise_than_its_document_says(url: str, tmp_path: Path) -> None:
    """The stream of events never ends, so it is not among these; `test_http_events.py` looks at it."""
    fuzzing = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "run", str(DOCUMENT.resolve()), "--url", url, "--no-color"),
        *("--exclude-operation-id", "followEvents", "--exclude-checks", NOT_MEANT, "--max-examples", "25"),
        *("--generation-deterministic", "--request-timeout", "30"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    report = (await fuzzing.communicate())[0].decode()
    assert fuzzing.returncode == 0, report[-6000:]
    assert "Tested: 9" in report


@pytest.mark.asyncio
async def test_the_page_of_both_documents_is_served_and_may_run_nothing(url: str) -> None:
    async with aiohttp.ClientSession(url) as session, session.get("/docs") as page:
        text = await page.text()
    assert (page.status, page.content_type) == (200, "text/html")
    assert "generation.succeeded" in text
    assert "/v1/generations/{request_id}" in text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "script" not in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
