"""What Prometheus scrapes: every thing that happens is counted, once, where it happened, under bounded labels."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import App
from service.domain.errors import ErrorCode
from service.domain.states import RequestState
from service.sandbox import Faults, Sandbox, SandboxOptions
from service.sandbox.schemas import STILL
from tests.support import crowd
from tests.support.bus import Team, name_of
from tests.support.replica import KEY, environment, get, running

pytestmark = pytest.mark.asyncio
OPEN = {"accepted", "submitting", "in_doubt", "submitted", "cancelling"}
LEADERS_OWN = (
    *("drover_backlog_requests", "drover_backlog_oldest_age_seconds", "drover_generations_in_flight"),
    *("drover_outbox_events", "drover_outbox_oldest_age_seconds", "drover_leadership_term"),
    "drover_stream_silence_seconds",
)
# Every label there may be, and what it may say: names that others choose are `model` and a pause's `scope` alone, and
# both are bounded, by the hub's models and by DROVER_TARGET_NAMESPACES.
LABELS = {
    "state": {state.value for state in RequestState},
    "code": {code.value for code in ErrorCode},
    "type": {
        *(f"generation.{name}" for name in ("accepted", "submitted", "output", "succeeded", "failed", "cancelled")),
        *("generation.expired", "generation.rejected"),
    },
    "outcome": {
        *("accepted", "not_sent"),
        *("adopted", "submitted_again", "undecided"),
        *("ok", "refused", "throttled", "failed", "unreachable", "unknown"),
    },
    "step": {
        "intake",
        "quarantine",
        "cancels",
        "outcomes",
        "gaps",
        "unheard",
        "unanswered",
        "waits",
        "reports",
        "relay",
    },
    "stage": {"waiting", "submitting", "generating", "publishing"},
    "call": {"submit", "list", "get", "cancel", "model"},
    "cause": {"post", "lapsed", "answered_late", "shown_late"},
    "by": {"stream", "look", "stop"},
}
UNITS = ("_total", "_seconds", "_size", "_info", "_bytes", "_bucket", "_sum", "_count", "_created")
COUNTS_NOW = {  # gauges that are a number of things, or a yes or no, and so have no unit
    *("drover_backlog_requests", "drover_generations_in_flight", "drover_outbox_events", "drover_feed_followers"),
    *("drover_leading", "drover_leadership_term", "drover_stream_connected", "drover_consuming"),
    *("drover_publishing_blocked", "drover_submission_paused", "drover_breaker_open"),
}
Samples = dict[tuple[str, ...], float]


async def scraped(url: str) -> tuple[str, Samples]:
    """The page as Prometheus gets it; its samples by name and labels."""
    status, body = await get(f"{url}/metrics")
    assert status == 200
    text = body.decode()
    families = text_string_to_metric_families(text)
    return text, {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def scraped_when(url: str, enough: Callable[[Samples], bool]) -> Samples:
    """The samples, as soon as they are enough."""
    async with asyncio.timeout(20):
        while True:
            _, samples = await scraped(url)
            if enough(samples):
                return samples
            await asyncio.sleep(0.1)  # a scrape has no signal


def told_of_all(samples: Samples) -> bool:
    """What was published is counted when it is marked, after the consumer has it; the backlog at the next look."""
    published = samples["drover_events_published_total", "generation.succeeded"]
    return samples["drover_outbox_events",] == 0 and published == 3


def url_of(app: App) -> str:
    return f"http://127.0.0.1:{app.http.port}"


async def play(team: Team, hub: Sandbox) -> None:
    """A request for each thing that may become of one."""
    film = {"input": {"prompt": "a lighthouse"}}
    await team.send({"request_id": "good", **film})
    await team.end_of("good")
    await team.send({"request_id": "wrong", "input": {"prompt": 7}})
    await team.end_of("wrong")
    await team.send(b"{", reply_to="nobody-is-here")
    await team.send({"request_id": "four", "num_generations": 4, "model": STILL, "input": {"prompt": "x"}})
    await team.end_of("four")
    await team.send({"request_id": "bad", "input": {"prompt": "a lighthouse [fail]"}})
    await team.end_of("bad")
    hub.faults = Faults(answers_lost=1.0)
    await team.send({"request_id": "doubted", **film})
    await asyncio.sleep(0.3)
    hub.faults = Faults()
    await team.end_of("doubted", 30)


async def test_everything_that_happens_is_counted(amqp_url: str, database_url: str, hub: Sandbox) -> None:
    quick = {"DROVER_DOUBT_GRACE_S": "1"}
    async with running(environment(amqp_url, database_url, hub.url, **quick)) as app, Team(amqp_url) as team:
        await play(team, hub)
        samples = await scraped_when(url_of(app), told_of_all)
        text, _ = await scraped(url_of(app))
    for state, count in {"accepted": 4, "submitted": 3, "succeeded": 3, "failed": 1, "in_doubt": 1}.items():
        assert samples["drover_requests_total", state] == count, state
    assert samples["drover_rejections_total", "invalid_input"] == 1
    assert samples["drover_events_published_total", "generation.succeeded"] == 3
    assert samples["drover_hub_calls_total", "submit", "ok"] == 3
    assert samples["drover_hub_calls_total", "submit", "unknown"] == 1
    assert samples["drover_hub_call_duration_seconds_count", "submit"] == 4
    assert samples["drover_hub_calls_total", "list", "ok"] >= 1
    assert samples["drover_doubts_opened_total", "post"] == 1
    assert samples["drover_doubts_total", "adopted"] == 1
    assert samples["drover_completions_total", "stream"] + samples["drover_completions_total", "look"] == 7
    for stage, count in {"waiting": 4, "submitting": 3, "generating": 4}.items():
        assert samples["drover_stage_duration_seconds_count", stage] == count, stage
    assert samples["drover_stage_duration_seconds_count", "publishing"] > 4
    assert {"intake", "outcomes", "reports", "relay"} <= {
        labels[0] for name, *labels in samples if name == "drover_batch_size_count"
    }
    # 121 frames, 24 a second, with sound: $0.1 a second
    assert samples["drover_cost_dollars_total", "ltx-2-3-quality-text-to-video"] == pytest.approx(3 * 0.1 * 121 / 24)
    assert samples["drover_cost_dollars_total", STILL] == pytest.approx(4 * 0.025)
    assert samples["drover_replies_undeliverable_total",] == 1
    assert samples["drover_leadership_taken_total",] == samples["drover_leadership_term",] == 1
    assert samples["drover_stream_gap_seconds_count",] == 1
    assert 0 <= samples["drover_stream_silence_seconds",] < 20
    check_conventions(text, samples)


def check_conventions(text: str, samples: Samples) -> None:
    """Prometheus' own judgement, and what it does not look at: units, and labels that cannot grow."""
    judged = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    told = [line for line in judged.stderr.splitlines() if line.startswith("drover_")]
    assert (judged.returncode in (0, 3), told) == (True, [])
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("drover_"):
            continue
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.name in COUNTS_NOW or sample.name.endswith(UNITS), sample.name
            for label, value in sample.labels.items():
                if label not in ("model", "scope", "reason", "version", "le"):
                    assert value in LABELS[label], (sample.name, label, value)
    assert not [name for name, *_ in samples if "request_id" in name]


async def test_what_stands_in_the_database_is_shown_by_the_leader_alone_and_goes_with_its_lead(
    amqp_url: str, database_url: str
) -> None:
    slow = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    async with slow, Team(amqp_url) as team:
        variables = environment(amqp_url, database_url, slow.url)
        async with running(variables) as leader, running(variables) as other:
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": "x"}} for i in range(5)])
            await team.wait_for(lambda heard: sum(name_of(e) == "submitted" for e in heard.events) == 5)
            shown = await scraped_when(
                url_of(leader), lambda found: found.get(("drover_backlog_requests", "submitted")) == 5
            )
            assert {labels[0] for name, *labels in shown if name == "drover_backlog_requests"} == OPEN
            assert shown["drover_backlog_oldest_age_seconds", "submitted"] > 0
            assert shown["drover_backlog_oldest_age_seconds", "in_doubt"] == 0
            assert shown["drover_generations_in_flight",] == 5
            _, hidden = await scraped(url_of(other))
            assert not [name for name, *_ in hidden if name in LEADERS_OWN]
            await leader.leadership.drain()
            _, hidden = await scraped(url_of(leader))
            assert not [name for name, *_ in hidden if name in LEADERS_OWN]
            await scraped_when(url_of(other), lambda found: found.get(("drover_leadership_term",)) == 2)


async def test_a_gap_is_timed_and_what_it_cost_is_counted(amqp_url: str, database_url: str) -> None:
    slow = Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))
    async with slow, running(environment(amqp_url, database_url, slow.url)) as app, Team(amqp_url) as team:
        await scraped_when(url_of(app), lambda found: found["drover_sweep_duration_seconds_count",] == 1)
        await team.send_many([{"request_id": f"r{i}", "input": {"prompt": "x"}} for i in range(3)])
        await team.wait_for(lambda heard: sum(name_of(e) == "submitted" for e in heard.events) == 3)
        generations = list(slow.hub.ledger.generations.values())
        crowd.end(slow, generations[:1])
        await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) == 1)
        slow.faults = Faults(stream_refused=True)
        slow.cut_streams()
        await scraped_when(url_of(app), lambda found: found["drover_stream_reconnects_total",] >= 2)
        crowd.end(slow, generations[1:])
        slow.faults = Faults()
        await team.wait_for(lambda heard: sum(name_of(e) == "succeeded" for e in heard.events) == 3)
        _, samples = await scraped(url_of(app))
    assert samples["drover_completions_total", "stream"] == 1
    assert samples["drover_completions_total", "look"] == 2
    assert samples["drover_stream_gap_seconds_count",] == 2
    assert samples["drover_stream_gap_seconds_sum",] > 0.2
    assert samples["drover_hub_calls_total", "get", "ok"] == 2


async def test_a_keep_alive_is_a_sign_of_life(amqp_url: str, database_url: str) -> None:
    talkative = Sandbox(SandboxOptions(api_key=KEY, render=False, keep_alive_s=0.5))
    async with talkative, running(environment(amqp_url, database_url, talkative.url)) as app:
        await scraped_when(url_of(app), lambda found: found.get(("drover_stream_connected",)) == 1)
        await asyncio.sleep(3)  # the time that passes is what is looked at
        _, samples = await scraped(url_of(app))
    assert samples["drover_stream_silence_seconds",] < 2
