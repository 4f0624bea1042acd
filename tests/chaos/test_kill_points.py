"""SIGKILL at every write, before and after: nothing is lost, nothing is paid twice, every request ends once.

The points are found by name and not by luck: the replica kills itself there (`tests/support/points.py`). Afterwards
time passes (leases and claims of the dead run out), another replica goes on, and everything is counted.
"""

from __future__ import annotations

import ast
import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
import pytest_asyncio
from msgspec.structs import replace

from service import postgres
from service.app import App
from service.domain.errors import ErrorCode
from service.domain.facts import (
    Fact,
    FoundUpstream,
    HubAccepted,
    HubRefused,
    InputFaulty,
    NotFoundUpstream,
    NotSent,
    OutcomeUnknown,
    OutputAbandoned,
    OutputMissing,
    OutputReported,
    StopPending,
    StopRequested,
    Undecidable,
)
from service.domain.lifecycle import decide
from service.domain.states import Fault, Output, OutputStatus, Request, RequestState, StopCause
from service.hub.client import HubClient
from service.postgres.statements import statements
from service.rabbit.bus import RabbitBus
from service.rabbit.connection import Link
from service.rabbit.consumer import Consumer
from service.rabbit.topology import DEAD, REQUESTS, declare
from service.sandbox import Sandbox, SandboxOptions
from tests.chaos.deaths import CALLS, MOVES, STATEMENTS, deaths
from tests.chaos.scene import Scene
from tests.chaos.workloads import Workload
from tests.support.bus import TERMINAL, Team, name_of
from tests.support.killable import Stable
from tests.support.points import quicken
from tests.support.replica import KEY, environment, running
from tests.support.servers import Servers
from tests.unit.builders import NOW, a_request

DEATHS = deaths()
pytestmark = pytest.mark.no_cover  # what is run here is traced elsewhere, at twice the price
QUICK = {"DROVER_DOUBT_GRACE_S": "0.2"}


@pytest_asyncio.fixture(scope="module")
async def stable() -> AsyncIterator[Stable]:
    """Where the replicas come from."""
    async with Stable() as forks:
        yield forks


@pytest_asyncio.fixture(scope="module")
async def database(servers: Servers, template: str) -> AsyncIterator[str]:
    """One for all of these tests: to make and to drop one costs more than a death."""
    url = await servers.make_database(template)
    yield url
    await servers.drop_database(url)


@pytest_asyncio.fixture
async def database_url(database: str) -> str:
    """That one, empty."""
    connection = await asyncpg.connect(database)
    tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    filled = ", ".join(row["tablename"] for row in tables if row["tablename"] != "schema_migrations")
    await connection.execute(f"truncate {filled} restart identity")
    await connection.close()
    return database


@dataclass(frozen=True, slots=True)
class Theatre:
    """Plays a workload to a replica that dies on its way, and then to another one that goes on."""

    stable: Stable
    amqp_url: str
    log: Path
    put: Callable[[object, str, object], None]

    async def play(self, workload: Workload, way: tuple[str, ...], database_url: str) -> None:
        """Counts in the end."""
        hub = Sandbox(SandboxOptions(api_key=KEY, delay_s=workload.delay_s, render=False))
        async with hub, Team(self.amqp_url) as team:
            scene = Scene(team, hub, database_url, self.amqp_url)
            variables = environment(self.amqp_url, database_url, hub.url, **QUICK, **workload.variables)
            await workload.prepare(scene)
            scene.replica = await self.stable.start(variables, way, self.log)
            playing = asyncio.create_task(workload.play(scene))
            status = await scene.replica.ended()
            await _over(playing, scene)
            assert (status, scene.replica.died_at()) == (-signal.SIGKILL, way[-1]), scene.replica.lines()[-20:]
            await scene.let_time_pass()
            await workload.heal(scene)
            quicken(self.put)
            async with running(variables) as survivor:
                await workload.afterwards(scene)
                await _at_rest(workload, team, survivor)
            assert await team.ready_messages(REQUESTS) == 0  # what was not acknowledged is ready again
            _check_events(workload, team)
            assert Counter(generation["prompt"] for generation in hub.ledger()["generations"]) == workload.bought
            await _check_dead(workload, team)


@pytest_asyncio.fixture
async def theatre(stable: Stable, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theatre:
    """On a broker whose queues are there, so that what is sent waits for its replica."""
    link = await Link.open(amqp_url, "topology")
    await declare(await link.channel(confirms=False))
    await link.close()
    return Theatre(stable, amqp_url, tmp_path / "log", monkeypatch.setattr)


@pytest.mark.asyncio
@pytest.mark.parametrize("death", sorted(DEATHS))
async def test_killed_at(death: str, theatre: Theatre, database_url: str) -> None:
    way, workload = DEATHS[death]
    await theatre.play(workload(), way, database_url)


@pytest.mark.asyncio
@pytest.mark.parametrize("point", ["before:migrations", "after:migrations"])
async def test_killed_at_the_commit_of(point: str, theatre: Theatre, servers: Servers) -> None:
    empty = await servers.make_database("template1")
    try:
        await theatre.play(Workload(), (point,), empty)
    finally:
        await servers.drop_database(empty)


async def _over(playing: asyncio.Task[None], scene: Scene) -> None:
    """Whatever the workload still waited for will not come; whatever broke it is told."""
    async with scene.speaking:
        playing.cancel()
    await asyncio.wait((playing,))
    if not playing.cancelled():
        playing.result()


async def _at_rest(workload: Workload, team: Team, survivor: App) -> None:
    """Waits until everything has ended and nothing waits to be published."""
    await team.wait_for(lambda heard: all(heard.ends(request_id) for request_id in workload.ends), 30)
    await team.wait_for(lambda heard: len({reply["id"] for reply in heard.replies}) == workload.replies)
    async with asyncio.timeout(20):
        while (await survivor.store.count_by_state(), await survivor.outbox.backlog(1)) != ({}, 0):
            await asyncio.sleep(0.02)  # the last mark has no event
        while await team.ready_messages(DEAD) < len(workload.dead):
            await asyncio.sleep(0.02)


def _check_events(workload: Workload, team: Team) -> None:
    """Each request has one story: one event for each number, and the last one, which no other is, tells its end."""
    assert {event["subject"] for event in team.events} == set(workload.ends)
    assert [message.message_id for message in team.messages] == [event["id"] for event in team.events]
    for request_id, end in workload.ends.items():
        story = sorted({(int(event["sequence"]), name_of(event), event["id"]) for event in team.of(request_id)})
        assert [number for number, _, _ in story] == list(range(1, len(story) + 1))
        assert len({event_id for _, _, event_id in story}) == len(story)
        assert [name for _, name, _ in story if name in TERMINAL] == [story[-1][1]] == [end]
    told = {event["id"] for event in team.ends("r")}
    assert told <= {reply["id"] for reply in team.replies}


async def _check_dead(workload: Workload, team: Team) -> None:
    """Each quarantined message is there, once or more often, with its reason."""
    found = {}
    while await team.ready_messages(DEAD):
        message = await team.take(DEAD)
        found[message.message_id] = message.headers["x-drover-reason"]
    assert found == workload.dead


# -- nothing is left out ----------------------------------------------------------------------------------------------

WRITES = re.compile(r"\b(insert into|delete from|update (?!set\b))")
FAULT = Fault(ErrorCode.UPSTREAM_REJECTED, "no")
LATER, PATIENCE = NOW + timedelta(minutes=2), timedelta(minutes=1)
# What may become known, of each kind.
FACTS: dict[type, tuple[Fact, ...]] = {
    HubAccepted: (HubAccepted(("g0",), 1), HubAccepted(("g0", "g1"), 1)),
    HubRefused: (HubRefused(FAULT),),
    NotSent: (NotSent("busy", NOW),),
    OutcomeUnknown: (OutcomeUnknown("reset"),),
    FoundUpstream: (FoundUpstream(("g0",)), FoundUpstream(("g0", "g1"))),
    NotFoundUpstream: (NotFoundUpstream(1, 1), NotFoundUpstream(1, 2)),
    Undecidable: (Undecidable("too late"),),
    InputFaulty: (InputFaulty(FAULT),),
    OutputReported: tuple(OutputReported("g0", status) for status in OutputStatus),
    OutputMissing: (OutputMissing("g0", NOW, PATIENCE), OutputMissing("g0", LATER, PATIENCE)),
    OutputAbandoned: (OutputAbandoned("g0", "never ended"),),
    StopRequested: tuple(map(StopRequested, StopCause)),
    StopPending: (StopPending(NOW),),
}


def requests() -> Iterator[Request]:
    """In every state, with and without a stop; with one output left to end, or two."""
    has_outputs = (RequestState.SUBMITTED, RequestState.CANCELLING)
    for state, count, looks, cause, missing in product(RequestState, (1, 2), (0, 1), (None, *StopCause), (None, NOW)):
        if cause is None and state is RequestState.CANCELLING:
            continue
        if cause is not None and state in (RequestState.ACCEPTED, RequestState.SUBMITTED):
            continue  # whoever is to be stopped has left these
        outputs = tuple(Output(index, f"g{index}", missing_since=missing) for index in range(count))
        yield replace(
            a_request(state, count),
            doubt_looks=looks,
            stop_cause=cause,
            stop_requested_at=cause and NOW,
            outputs=outputs if state in has_outputs else (),
        )


def test_nothing_is_written_past_the_named_statements() -> None:
    """But for the migrations, which have deaths of their own, and a NOTIFY, which is a hint."""
    calls = {
        (file.name, ast.unparse(node.args[0])[:20])
        for file in Path(postgres.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr.startswith(("execute", "copy_"))
    }
    assert "migrate.py" in {name for name, _ in calls}
    assert {text for name, text in calls if name != "migrate.py"} == {"f'notify {CHANNEL}'"}


def test_every_statement_that_writes_has_its_deaths() -> None:
    writing = {
        name for name, text in statements().items() if WRITES.search(re.sub(r"--.*|for update|do update", "", text))
    }
    assert writing == {*STATEMENTS, "apply"}


def test_every_move_of_a_request_has_its_deaths() -> None:
    assert set(FACTS) == set(get_args(Fact))
    decisions = [decide(request, [fact], NOW) for request in requests() for facts in FACTS.values() for fact in facts]
    moves = {f"{it.before.state.value}-{it.after.state.value}" for it in decisions if it is not None}
    assert moves | {"in_doubt-succeeded"} == set(MOVES)  # that one is two facts at once


@pytest.mark.parametrize(
    ("adapter", "harmless"),
    [
        (RabbitBus, {"wait_connected", "run", "drain", "close"}),
        (Consumer, {"deliver_to", "run", "pause", "resume", "drain", "settle", "close"}),
        (HubClient, {"open", "close", "active", "sightings", "generation", "model", "models"}),
    ],
)
def test_every_call_that_leaves_something_outside_has_its_deaths(adapter: type, harmless: set[str]) -> None:
    calls = {name for name, member in vars(adapter).items() if callable(member) and not name.startswith("_")}
    assert calls - harmless <= {name.split("/")[0] for name in CALLS}
