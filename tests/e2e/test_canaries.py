"""Nothing secret or personal leaves by a door that is not meant for it.

Everything that a person or an operator gives is a value that occurs nowhere else; whatever happens to it, good and bad,
it must not turn up in a log, a metric, a health check, a command's report, an error of the API, or the servers' logs.
Doors that are meant for content: events and replies, the API's answers to an authorised caller, the database, the
quarantine's letters. What may be logged: request ids, generation ids, sources (`user_id`, `app_id`), models, the
operator's own namespaces, and names of parameters that look like names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from aiohttp import web

from service.sandbox import Sandbox, SandboxOptions
from tests.integration.builders import as_user
from tests.support.api import Api
from tests.support.bus import Team, name_of
from tests.support.canaries import Canaries, ServersLogs
from tests.support.command import drover
from tests.support.replica import Process, environment
from tests.support.servers import Servers
from tests.support.talkative import BREAKS

pytestmark = pytest.mark.asyncio
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Talkative(Process):
    """At DEBUG, and with a defect."""

    module = "tests.support.talkative"


@pytest.fixture
def canaries() -> Canaries:
    """Of one test."""
    return Canaries()


@pytest.fixture
def logs() -> ServersLogs:
    """What Postgres and RabbitMQ write in the test."""
    return ServersLogs()


@pytest_asyncio.fixture
async def guarded(
    servers: Servers, amqp_url: str, database_url: str, canaries: Canaries
) -> AsyncIterator[dict[str, str]]:
    """The environment of a replica whose every secret is a canary; the hub is added by the test."""
    user = f"user-{urlsplit(amqp_url).path[1:]}"
    body = json.dumps({"password": canaries["amqppassword"], "tags": ""}).encode()
    await servers.manage("PUT", f"/api/users/{user}", body)
    everything = b'{"configure": ".*", "write": ".*", "read": ".*"}'
    await servers.manage("PUT", f"/api/permissions/{urlsplit(amqp_url).path[1:]}/{user}", everything)
    role = f"role_{urlsplit(database_url).path[1:]}"[:60]
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"create role {role} login superuser password '{canaries['databasepassword']}'")
    yield environment(
        as_user(amqp_url, user, canaries["amqppassword"]),
        as_user(database_url, role, canaries["databasepassword"]),
        "",
        OXEN_API_KEY=canaries["apikey"],
        DROVER_API_TOKENS=canaries["apitoken"],
    )
    await owner.execute("set lock_timeout = '5s'")
    await owner.execute(f"drop role {role}")
    await owner.close()
    await servers.manage("DELETE", f"/api/users/{user}")


@asynccontextmanager
async def echoing_hub(status: int) -> AsyncIterator[str]:
    """A hub that answers every call with an error that quotes it: key, headers, query and body."""

    async def answer(request: web.Request) -> web.Response:
        quoted = f"{dict(request.headers)} {request.path_qs} {(await request.read()).decode()}"
        document = {"error": {"type": "invalid_params", "title": "no", "detail": quoted}, "status": "error"}
        return web.json_response(document, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def request(canaries: Canaries, request_id: str, **changes: Any) -> dict[str, Any]:
    """A request with content in every place."""
    given = {"prompt": canaries["prompt"], "negative_prompt": canaries["negativeprompt"]}
    return {
        "request_id": request_id,
        "input": {**given, **changes.pop("input", {})},
        "metadata": {canaries["metadatakey"]: canaries["metadatavalue"]},
        **changes,
    }


def properties(canaries: Canaries) -> dict[str, Any]:
    """What goes with it."""
    return {
        "correlation_id": canaries["correlation"],
        "reply_to": canaries["replyto"],
        "headers": {
            "x-note": canaries["header"],
            "traceparent": TRACEPARENT,
            "tracestate": f"shop={canaries['tracestate']}",
        },
    }


async def play(team: Team, canaries: Canaries) -> list[str]:
    """Everything that can become of a message; the URLs of the results."""
    around = properties(canaries)
    envelope = {"specversion": "1.0", "id": canaries["eventid"], "source": "/shop", "type": "shop.clip.wanted"}
    wrapped = {**envelope, "tenant": canaries["extension"], "data": request(canaries, "succeeds")}
    await team.send(wrapped, content_type="application/cloudevents+json", **around)
    failing = request(canaries, "fails", input={"prompt": f"[fail] {canaries['prompt']}"})
    await team.send(failing, **around)
    unfit = {"num_frames": canaries["invalidvalue"], f"{canaries['inputkey']} ?": 2**70}
    await team.send(request(canaries, "rejected", input=unfit), **around)
    odd = {canaries["oddkey"]: 2**70, canaries["nulkey"]: "\0"}
    await team.send(request(canaries, "odd", metadata=odd), **around)
    await team.send(request(canaries, "billed", target_namespace=canaries["namespace"]), **around)
    await team.send(request(canaries, "unread", **{f"{canaries['field']} ?": 1}), **around)
    await team.send({**wrapped, "specversion": canaries["invalidvalue"]}, **around)
    await team.send(f'{{"request_id": {canaries["brokenbody"]}'.encode(), **around)
    await team.send(canaries["brokenbody"].encode(), message_id=f"{canaries['brokenid']} ?", **around)
    await team.send(request(canaries, f"{canaries['brokenid']} ?"), **around)
    await team.send(request(canaries, "succeeds", num_generations=2), **around)  # known with other content
    await team.cancel({"request_id": "cancelled", canaries["field"]: canaries["invalidvalue"]}, **around)
    await team.cancel({"request_id": "cancelled"}, **around)
    await team.send(request(canaries, "cancelled"), **around)
    await team.send(request(canaries, BREAKS), **around)
    ends = [await team.end_of(each) for each in ("succeeds", "fails", "rejected", "odd", "billed", "cancelled")]
    assert [name_of(end) for end in ends] == ["succeeded", "failed", *["rejected"] * 3, "cancelled"]
    return [output["url"] for output in ends[0]["data"]["outputs"]]


async def call(port: int, canaries: Canaries) -> list[str]:
    """The API, by those who may and those who may not; what it tells when it refuses, and to everybody."""
    token = {"Authorization": f"Bearer {canaries['apitoken']}"}
    wrong = {"Authorization": f"Bearer {canaries['wrongtoken']}", "X-Note": canaries["header"]}
    told: list[str] = []
    async with Api(f"http://127.0.0.1:{port}", token) as api:
        for method, path, options in (
            ("GET", "/v1/generations/succeeds", {"headers": wrong}),
            ("POST", "/v1/generations", {"headers": wrong, "json": request(canaries, "posted")}),
            ("POST", "/v1/generations", {"data": canaries["brokenbody"], "headers": {"Content-Type": "text/plain"}}),
            (
                "POST",
                "/v1/generations",
                {"data": canaries["brokenbody"], "headers": {"Content-Type": "application/json"}},
            ),
            (
                "POST",
                "/v1/generations",
                {"json": request(canaries, "posted", input={"num_frames": canaries["invalidvalue"]})},
            ),
            ("POST", "/v1/generations", {"json": request(canaries, "succeeds", num_generations=3)}),
            ("POST", "/v1/generations", {"json": request(canaries, "posted"), "headers": {"Idempotency-Key": "a b"}}),
            ("GET", f"/v1/generations?{canaries['field']}={canaries['invalidvalue']}", {}),
            ("GET", f"/v1/generations?status={canaries['invalidvalue']}", {}),
            ("GET", f"/v1/generations/{canaries['path']}%20", {}),
            ("GET", f"/{canaries['path']}", {}),
            ("GET", f"/v1/models/{canaries['path']}", {}),
        ):
            answer = await api.call(method, path, **options)
            assert answer.status >= 400, (method, path)
            told.append(json.dumps(answer.document))
    for path in ("/metrics", "/readyz", "/healthz"):
        async with Api(f"http://127.0.0.1:{port}") as anybody, anybody._session.get(path) as response:
            told.append(await response.text())
    return told


async def reports(variables: Mapping[str, str]) -> list[str]:
    """What the operator's commands print; `status` of one request is for whoever may read the database."""
    told: list[str] = []
    for command in ("doctor", "doctor --json", "config --json", "status --json", "dead list --json"):
        told += (await drover(*command.split(), **variables))[1:]
    return told


def process_table(service: Process) -> str:
    """What every user of the machine may see of it."""
    of = Path(f"/proc/{service.process.pid}")
    return "".join((of / name).read_text(errors="replace") for name in ("cmdline", "comm", "status"))


def said_by(service: Process) -> str:
    """Both of its streams."""
    return b"".join(service.raw).decode() + "".join(service.errors)


def nothing_in(canaries: Canaries, doors: Mapping[str, str]) -> None:
    """No canary came out, except by a door that is meant for it."""
    assert {door: found for door, text in doors.items() if (found := canaries.found_in(text))} == {}


@pytest.mark.parametrize("kind", [Process, Talkative], ids=["INFO", "DEBUG"])
async def test_nothing_of_a_request_or_a_secret_leaves_whatever_becomes_of_it(
    kind: type[Process], amqp_url: str, guarded: dict[str, str], canaries: Canaries, logs: ServersLogs
) -> None:
    options = SandboxOptions(api_key=canaries["apikey"], delay_s=0.2, render=False)
    async with Sandbox(options) as hub, Team(amqp_url) as team:
        variables = {**guarded, "OXEN_BASE_URL": hub.url}
        async with kind(variables) as service:
            port = await service.ready()
            urls = await play(team, canaries)
            answers = await call(port, canaries)
            printed = await reports(variables)
            table = process_table(service)
            if kind is Talkative:
                await service.logged_where(lambda line: "traceback" in str(line).lower() or "exception" in line)
            service.terminate()
            await service.ended()
    assert kind is Process or "ValueError (its text is left out)" in said_by(service)
    for number, url in enumerate(urls):
        canaries.planted[f"query of result {number}"] = urlsplit(url).query
    assert all(canaries.planted.values())
    doors = {"log": said_by(service), "process": table, **logs.read()}
    doors |= {f"answer {number}": text for number, text in enumerate(answers)}
    doors |= {f"report {number}": text for number, text in enumerate(printed)}
    nothing_in(canaries, doors)


@pytest.mark.parametrize("status", [401, 422, 500])
async def test_a_hub_that_quotes_what_it_was_sent_tells_it_to_nobody_but_the_requester(
    status: int, amqp_url: str, guarded: dict[str, str], canaries: Canaries
) -> None:
    async with echoing_hub(status) as hub_url, Team(amqp_url) as team:
        variables = {**guarded, "OXEN_BASE_URL": hub_url}
        async with Talkative(variables) as service:
            port = await service.ready()
            await team.send(request(canaries, "asked"), **properties(canaries))
            await team.send(request(canaries, "other", model="unheard-of"), **properties(canaries))
            if status == 422:
                end = await team.end_of("asked")
                told = end["data"]["error"]["message"]
                assert (canaries["prompt"] in told, canaries["apikey"] in json.dumps(end)) == (True, False)
            else:
                await service.logged_where(lambda line: line.get("request_id") == "asked" and "was" in line)
            async with Api(f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {canaries['apitoken']}"}) as api:
                answer = json.dumps((await api.call("GET", "/v1/models")).document)
            async with Api(f"http://127.0.0.1:{port}") as anybody, anybody._session.get("/readyz") as response:
                ready = await response.text()
            printed = await reports(variables)
    doors = {"log": said_by(service), "models": answer, "readyz": ready}
    nothing_in(canaries, doors | {f"report {number}": text for number, text in enumerate(printed)})


async def test_servers_that_refuse_the_login_are_told_without_what_was_tried(
    amqp_url: str, database_url: str, hub: Sandbox, canaries: Canaries, logs: ServersLogs
) -> None:
    user, role = urlsplit(amqp_url), urlsplit(database_url)
    wrong_amqp = as_user(amqp_url, user.username or "", canaries["amqppassword"])
    wrong_database = as_user(database_url, role.username or "", canaries["databasepassword"])
    doors = {}
    async with Talkative(environment(wrong_amqp, database_url, hub.url)) as service:
        await service.logged("bus.not_connected")
        await service.logged("consumer.not_connected")
    doors["broker"] = said_by(service)
    async with Talkative(environment(amqp_url, wrong_database, hub.url)) as service:
        assert await service.ended() == 2
    doors["database"] = said_by(service)
    printed = await reports(environment(wrong_amqp, wrong_database, hub.url))
    for command in (("migrate",), ("topology",), ("submit", "--prompt", canaries["prompt"]), ("status", "x")):
        printed += (await drover(*command, **environment(wrong_amqp, wrong_database, hub.url)))[1:]
    doors |= {f"report {number}": text for number, text in enumerate(printed)}
    nothing_in(canaries, {**doors, **logs.read()})


async def test_a_wrong_secret_in_a_url_is_told_without_it(canaries: Canaries) -> None:
    password = quote(canaries["urlpassword"])
    variables = {
        "OXEN_API_KEY": canaries["apikey"],
        "DROVER_AMQP_URL": f"amqp://u:{password}@127.0.0.1:99999/",
        "DROVER_DATABASE_URL": f"postgresql://u:{password}/x@127.0.0.1/x",
        "OXEN_BASE_URL": f"https://u:{password}@127.0.0.1/",
        "DROVER_API_TOKENS": f"{canaries['apitoken']} {canaries['apitoken']}",
    }
    printed = await reports(variables)
    nothing_in(canaries, {f"report {number}": text for number, text in enumerate(printed)})
