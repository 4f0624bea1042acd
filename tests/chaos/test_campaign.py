"""The campaign in short: every kind of fault at least once, and nothing lost, repeated, bought twice or left over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.local.stack import Stack
from tests.chaos.campaign import Campaign, play
from tests.chaos.checker import check
from tests.chaos.report import report
from tests.chaos.schedule import FaultKind, Options
from tests.chaos.stage import servers_up

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.chaos,
    pytest.mark.xdist_group("chaos"),
    pytest.mark.timeout(300),
]
SHORT = Options(
    seconds=22.0,
    quiet_s=2.0,
    kills=2,
    freezes=1,
    broker_kills=1,
    database_restarts=1,
    freeze_s=(7.0, 8.0),
    outage_s=(0.0, 0.5),
)
CAMPAIGN = Campaign(seed=4, requests=300, delay_s=1.0, share=0.04, options=SHORT)


@pytest_asyncio.fixture
async def private_stack() -> AsyncIterator[Stack]:
    """Servers that may be killed: nobody else's tests run on them."""
    home = Path(tempfile.mkdtemp(prefix="drover-chaos-"))
    try:
        async with servers_up(home) as stack:
            yield stack
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_a_short_campaign_loses_nothing_and_pays_for_nothing_twice(private_stack: Stack, tmp_path: Path) -> None:
    played = await play(private_stack, CAMPAIGN, tmp_path)
    verdict = check(played.evidence)
    told = report(CAMPAIGN, played, verdict)
    assert not verdict.findings, told
    assert {incident.kind for incident in played.evidence.incidents} == set(FaultKind), told
    for fault in ("answers_lost", "posts_limited", "posts_failed", "posts_failed_late", "events_dropped"):
        assert played.evidence.strikes[fault], told
