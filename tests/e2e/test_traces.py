"""One trace from the producer's message to the published event, at a real OTLP receiver."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg
import pytest

from service.sandbox import Faults, Sandbox, SandboxOptions
from service.sandbox.generation import Generation
from tests.support import collector as otlp
from tests.support import crowd
from tests.support.bus import Team, name_of
from tests.support.collector import Collector, Received
from tests.support.ports import free_port
from tests.support.replica import KEY, OWN_VARIABLES, Process, environment, get

pytestmark = pytest.mark.asyncio
TRACE, PRODUCER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT, SAMPLED_OUT = f"00-{TRACE}-{PRODUCER}-01", f"00-{TRACE}-{PRODUCER}-00"
PROCESS, SUBMIT, GENERATE = "generation.requests process", "submit", "generate"
PUBLISH, REPLY, RESOLVE = "generation.events publish", "reply publish", "resolve doubt"


@asynccontextmanager
async def replica(variables: Mapping[str, str]) -> AsyncIterator[Process]:
    """A process that takes requests when entered, and is drained when left."""
    async with Process(variables) as drover:
        await drover.ready()
        yield drover
        drover.terminate()
        assert await drover.ended() == 0
    assert drover.errors == []


@pytest.fixture
def slow_hub() -> Sandbox:
    """A hub whose generations end when the test says so."""
    return Sandbox(SandboxOptions(api_key=KEY, delay_s=3600, render=False))


def bought(hub: Sandbox) -> list[Generation]:
    """The generations at the hub, in order."""
    return list(hub.hub.ledger.generations.values())


def header(team: Team, event: Mapping[str, Any], name: str = "traceparent") -> str | None:
    """What the published message of an event carried."""
    message = next(message for message in team.messages if message.message_id == event["id"])
    found = message.headers.get(name)
    return None if found is None else str(found)


async def kept(url: str, request_id: str) -> str | None:
    """The stored traceparent of a request."""
    connection = await asyncpg.connect(url)
    try:
        stored: str | None = await connection.fetchval(
            "select traceparent from requests where request_id = $1", request_id
        )
    finally:
        await connection.close()
    return stored


def events_published(seen: Collector, request_id: str, count: int = 3) -> bool:
    """Whether all of a request's spans are there: those of its events come last."""
    return len(seen.of(request_id, PUBLISH)) >= count and bool(seen.of(request_id, PROCESS))


async def test_one_trace_reaches_from_the_producers_message_across_two_replicas_to_the_event(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    n = 24
    async with Collector() as seen:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with replica(variables), replica(variables), Team(amqp_url) as team:
            for i in range(n):
                await team.send(
                    {"request_id": f"r{i}", "input": {"prompt": "x"}},
                    headers={"traceparent": f"00-{i + 1:032x}-{PRODUCER}-01", "tracestate": "shop=7"},
                    message_id=f"m{i}",
                )
            for i in range(n):
                await team.end_of(f"r{i}")
            await seen.wait_for(lambda here: all(events_published(here, f"r{i}") for i in range(n)))
            await seen.wait_for(lambda here: all(here.of(f"r{i}", GENERATE) for i in range(n)))
        replicas = {span.resource["service.instance.id"] for span in seen.spans}
        for i in range(n):
            check_a_whole_trace(seen, team, f"r{i}", f"{i + 1:032x}")
    assert len(replicas) == 2
    crossed = [i for i in range(n) if len({s.resource["service.instance.id"] for s in seen.of(f"r{i}")}) == 2]
    assert crossed, "no request passed through both replicas"
    assert {span.resource["service.name"] for span in seen.spans} == {"drover"}


def check_a_whole_trace(seen: Collector, team: Team, request_id: str, trace: str) -> None:
    """What was drawn of one request that went well, and what its events carried."""
    spans = seen.of(request_id)
    assert {span.trace for span in spans} == {trace}
    assert {span.tracestate for span in spans} == {"shop=7"}
    assert not any(span.failed for span in spans)
    process = seen.one(request_id, PROCESS)
    assert (process.kind, process.parent) == ("CONSUMER", PRODUCER)
    assert process.attributes["drover.outcome"] == "stored"
    assert process.attributes["messaging.destination.name"] == "generation.requests"
    submit, generate = seen.one(request_id, SUBMIT), seen.one(request_id, GENERATE)
    assert (submit.kind, submit.attributes["drover.outcome"]) == ("CLIENT", "taken")
    assert (generate.kind, generate.attributes["drover.state"]) == ("INTERNAL", "succeeded")
    assert submit.attributes["drover.generation_ids"] == generate.attributes["drover.generation_ids"]
    published = {span.attributes["messaging.message.id"]: span for span in seen.of(request_id, PUBLISH)}
    assert {span.kind for span in published.values()} == {"PRODUCER"}
    for span in (submit, generate, *published.values()):
        assert span.parent == process.id
    for event in team.of(request_id):
        assert event["traceparent"] == f"{process.traceparent}01"
        assert header(team, event) == f"{published[event['id']].traceparent}01"
        assert header(team, event, "tracestate") == "shop=7"
    check_times(team.ends(request_id)[0], process, submit, generate)


def check_times(end: Mapping[str, Any], process: Received, submit: Received, generate: Received) -> None:
    """The generation lasts from the moment that events call submitted to the one that they call finished."""
    told = (end["data"]["submitted_at"], end["data"]["finished_at"])
    began, ended = (int(datetime.fromisoformat(moment).timestamp() * 1_000_000) * 1000 for moment in told)
    assert (generate.began_ns, generate.ended_ns) == (began, ended)
    assert process.began_ns <= submit.began_ns <= submit.ended_ns
    assert process.began_ns <= process.ended_ns


async def test_a_restart_of_every_replica_between_submission_and_end_keeps_the_trace(
    amqp_url: str, database_url: str, slow_hub: Sandbox
) -> None:
    async with Collector() as seen, slow_hub as hub, Team(amqp_url) as team:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with replica(variables):
            await team.send({"request_id": "long", "input": {"prompt": "x"}}, headers={"traceparent": TRACEPARENT})
            await team.wait_for(lambda heard: len(heard.of("long")) == 2)
        first = {span.name for span in seen.of("long")}  # the drain has sent what there was
        assert first == {PROCESS, SUBMIT, PUBLISH}
        async with replica(variables):
            crowd.end(hub, bought(hub))
            end = await team.end_of("long")
    spans = seen.of("long")
    assert {span.trace for span in spans} == {TRACE}
    process, generate = seen.one("long", PROCESS), seen.one("long", GENERATE)
    assert generate.parent == process.id
    assert generate.resource["service.instance.id"] != process.resource["service.instance.id"]
    assert {span.parent for span in spans} == {PRODUCER, process.id}
    assert header(team, end) in {f"{span.traceparent}01" for span in seen.of("long", PUBLISH)}


async def test_what_is_sampled_out_is_not_drawn_and_its_context_goes_on(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with Collector() as seen, Team(amqp_url) as team:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with replica(variables):
            await team.send({"request_id": "out", "input": {"prompt": "x"}}, headers={"traceparent": SAMPLED_OUT})
            await team.send({"request_id": "bad", "input": {}}, headers={"traceparent": SAMPLED_OUT})
            for request_id in ("out", "bad"):
                end = await team.end_of(request_id)
                assert (end["traceparent"], header(team, end)) == (SAMPLED_OUT, SAMPLED_OUT)
        assert seen.spans == []


async def test_a_root_that_the_sampler_drops_stays_dropped_in_every_step(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    never = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    async with Collector() as seen, Team(amqp_url) as team:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url, **never)}
        async with replica(variables):
            await team.send({"request_id": "root", "input": {"prompt": "x"}})
            end = await team.end_of("root")
        assert end["traceparent"].endswith("-00")
        assert header(team, end) == end["traceparent"]
        assert seen.spans == []


async def test_a_request_without_a_context_begins_a_trace_and_a_repeat_leaves_it(
    amqp_url: str, database_url: str, slow_hub: Sandbox
) -> None:
    async with Collector() as seen, slow_hub as hub, Team(amqp_url) as team:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with replica(variables):
            await team.send({"request_id": "again", "input": {"prompt": "x"}})
            await team.wait_for(lambda heard: len(heard.of("again")) == 2)
            first = await kept(database_url, "again")
            await team.send({"request_id": "again", "input": {"prompt": "x"}}, headers={"traceparent": TRACEPARENT})
            await seen.wait_for(lambda here: len(here.of("again", PROCESS)) == 2)
            assert await kept(database_url, "again") == first
            await team.send({"request_id": "again", "input": {"prompt": "y"}}, reply_to=team.reply_to)
            await team.wait_for(lambda heard: len(heard.replies) == 1)
            crowd.end(hub, bought(hub))
            end = await team.end_of("again")
    stored, repeated, conflicting = seen.of("again", PROCESS)
    assert first is not None
    assert first == f"{stored.traceparent}{first[-2:]}" == end["traceparent"]
    assert (stored.parent, repeated.parent, repeated.trace) == ("", PRODUCER, TRACE)
    assert [span.attributes["drover.outcome"] for span in (stored, repeated, conflicting)] == [
        "stored",
        "repeated",
        "quarantined",
    ]
    assert (conflicting.failed, conflicting.attributes["error.type"]) == (True, "idempotency_conflict")
    reply = seen.one("again", REPLY)
    assert (reply.parent, reply.trace) == (conflicting.id, conflicting.trace)
    assert team.replies[0]["traceparent"].startswith(conflicting.traceparent)


async def test_a_rejection_is_drawn_beneath_the_envelopes_context_with_the_event_that_says_it(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    envelope = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "shop.clip.wanted",
        "traceparent": TRACEPARENT,
        "data": {"request_id": "bad", "input": {"num_frames": "many"}},
    }
    async with Collector() as seen, Team(amqp_url) as team:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with replica(variables):
            await team.send(envelope, content_type="application/cloudevents+json")
            end = await team.end_of("bad")
    process, published = seen.one("bad", PROCESS), seen.one("bad", PUBLISH)
    assert (process.trace, process.parent, process.failed) == (TRACE, PRODUCER, True)
    assert (process.attributes["drover.outcome"], process.attributes["error.type"]) == ("rejected", "invalid_input")
    assert published.parent == process.id
    assert end["traceparent"] == f"{process.traceparent}01"
    assert header(team, end) == f"{published.traceparent}01"


async def test_each_post_is_drawn_with_its_outcome_and_so_is_the_doubt_that_one_left(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    hub.faults = Faults(answers_lost=1.0)
    async with Collector() as seen, Team(amqp_url) as team:
        variables = {
            **environment(amqp_url, database_url, hub.url, DROVER_DOUBT_GRACE_S="1"),
            **otlp.environment(seen.url),
        }
        async with replica(variables):
            await team.send({"request_id": "lost", "input": {"prompt": "x"}}, headers={"traceparent": TRACEPARENT})
            await seen.wait_for(lambda here: bool(here.of("lost", SUBMIT)))
            hub.faults = Faults()
            await team.end_of("lost", 30)
            hub.faults = Faults(post_status=400)
            await team.send({"request_id": "refused", "input": {"prompt": "x"}}, headers={"traceparent": TRACEPARENT})
            await team.end_of("refused")
    process, submit, doubt = (seen.one("lost", name) for name in (PROCESS, SUBMIT, RESOLVE))
    assert (submit.failed, submit.attributes["drover.outcome"], submit.attributes["drover.attempt"]) == (
        True,
        "unknown",
        1,
    )
    assert (doubt.failed, doubt.attributes["drover.outcome"], doubt.parent) == (False, "found", process.id)
    assert doubt.ended_ns - doubt.began_ns > 0
    assert seen.one("lost", GENERATE).parent == process.id
    submit = seen.one("refused", SUBMIT)
    assert (submit.failed, submit.attributes["drover.outcome"]) == (True, "refused")
    assert submit.attributes["error.type"] == "upstream_rejected"
    assert not seen.of("refused", GENERATE)  # nothing was ever generated


async def test_no_span_holds_a_prompt_metadata_a_key_or_a_result_url(amqp_url: str, database_url: str) -> None:
    hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=0.2, render=False))
    async with Collector() as seen, hub, Team(amqp_url) as team:
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=CANARY-HEADER", "OTEL_SERVICE_NAME": "clips"}
        gzip = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
        variables = {
            **environment(amqp_url, database_url, hub.url),
            **otlp.environment(seen.url, **headers, **gzip),
        }
        async with replica(variables) as drover:
            await team.send({"request_id": "quiet", "input": {"prompt": "CANARY-PROMPT"}, "metadata": {"m": "CANARY"}})
            await team.send({"request_id": "loud", "input": {"prompt": ["CANARY"], "seed": "CANARY"}})
            await team.send({"request_id": "odd", "model": "CANARY", "input": {"prompt": "CANARY"}})
            await team.send(b'{"request_id": "CANARY with blanks", "CANARY": 1}', reply_to=team.reply_to)
            await team.send({"request_id": "fails", "input": {"prompt": "CANARY [fail]"}})
            ends = [await team.end_of(request_id) for request_id in ("quiet", "loud", "odd", "fails")]
    assert {name_of(end) for end in ends} == {"succeeded", "rejected", "failed"}
    assert "signature=" in ends[0]["data"]["outputs"][0]["url"]
    exported = b"".join(seen.raw)
    assert b"quiet" in exported
    for secret in (b"CANARY", KEY.encode(), b"signature="):
        assert secret not in exported
    assert set(seen.encodings) == {"gzip"}
    assert {headers["x-collector-key"] for headers in seen.headers} == {"CANARY-HEADER"}
    assert {span.resource["service.name"] for span in seen.spans} == {"clips"}
    assert "CANARY" not in json.dumps(drover.lines)
    failed = seen.one("fails", GENERATE)
    assert (failed.failed, failed.attributes["error.type"]) == (True, "upstream_failed")


async def test_a_request_over_http_goes_on_with_its_callers_trace(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    async with Collector() as seen:
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(seen.url)}
        async with Process(variables) as drover, aiohttp.ClientSession() as session:
            port = await drover.ready()
            url = f"http://127.0.0.1:{port}/v1/generations?wait=20"
            body = {"request_id": "over-http", "input": {"prompt": "x"}}
            async with session.post(url, json=body, headers={"traceparent": TRACEPARENT}) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "succeeded")
            await seen.wait_for(lambda here: events_published(here, "over-http"))
    assert {span.trace for span in seen.of("over-http")} == {TRACE}
    assert seen.one("over-http", PROCESS).parent == PRODUCER


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """A collector that takes connections and never says anything."""
    connections: list[asyncio.StreamWriter] = []

    def swallow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in connections:
            writer.transport.abort()
        server.close()


@asynccontextmanager
async def absent() -> AsyncIterator[str]:
    """A collector that is not there."""
    yield f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("collector", [hanging, absent])
async def test_a_collector_that_hangs_or_is_away_costs_its_spans_and_nothing_else(
    amqp_url: str, database_url: str, hub: Sandbox, collector: Callable[[], AbstractAsyncContextManager[str]]
) -> None:
    async with collector() as url, Team(amqp_url) as team:
        # So few, that there are more than fit: what is too much is dropped, and nobody waits.
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
        variables = {**environment(amqp_url, database_url, hub.url), **otlp.environment(url, **small)}
        async with Process(variables) as drover:
            port = await drover.ready()
            await team.send_many([{"request_id": f"r{i}", "input": {"prompt": "x"}} for i in range(40)])
            await team.wait_for(lambda heard: all(heard.ends(f"r{i}") for i in range(40)))
            assert (await get(f"http://127.0.0.1:{port}/readyz"))[0] == 200
            await drover.logged("traces.impaired")
            began = time.monotonic()
            drover.terminate()
            assert await drover.ended() == 0
            took = time.monotonic() - began
        assert drover.errors == []
        await drover.logged("traces.not_flushed")
        assert took < 15  # the drain's own seconds, 1.5 for the collector, and a busy machine


async def test_tracing_is_off_without_its_variables_and_then_nothing_of_it_is_there(
    amqp_url: str, database_url: str, hub: Sandbox
) -> None:
    code = """
import sys, threading
from service.app import build
from service.settings import load_settings
import service.cli.serve
app = build(load_settings())
assert not app.tracing.on
app.tracing.open()
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf", "service.otlp.t"))]
assert threading.active_count() == 1
"""
    off: tuple[dict[str, str], ...] = (
        {},
        {"OTEL_SERVICE_NAME": "clips"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    )
    for more in off:
        assert await python(code, environment(amqp_url, database_url, hub.url, **more)) == (0, "")


@pytest.mark.parametrize(
    ("more", "blocked", "told"),
    [
        ({}, "opentelemetry", "pip install 'drover[tracing]'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", "4318"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "", "max_export_batch_size"),
    ],
)
async def test_what_cannot_work_ends_serve_with_a_sentence(
    variables: dict[str, str], more: dict[str, str], blocked: str, told: str
) -> None:
    code = f"""
import sys
if {blocked!r}:
    sys.modules[{blocked!r}] = None
sys.argv = ["drover", "serve"]
from service.cli import main
main()
"""
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **more}
    status, said = await python(code, {**variables, **asked})
    assert status == 2
    assert said.startswith("drover: ")
    assert told in said
    assert "Traceback" not in said


async def python(code: str, variables: Mapping[str, str]) -> tuple[int | None, str]:
    """Exit code and stderr of a Python process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env={**inherited, **variables},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()
