"""The cost of a generation is flat: every hot statement goes by its index, however many requests there have been.

`explain execute` shows what a prepared statement really gets: a generic plan that knows no values, or a custom one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.postgres.database import SESSION
from service.postgres.statements import statements
from tests.integration.builders import Sql
from tests.support.servers import Servers

pytestmark = pytest.mark.asyncio
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)
BIG = frozenset({"requests", "outputs", "outbox", "unpublished", "orphan_events"})
MODES = ("force_generic_plan",)  # as SESSION has it; another may be looked at here

# 25,000 requests: 300 wait, 100 are being submitted, 600 are at the hub, the others have ended and been told of.
FILL = """
insert into requests (request_id, state, version, sequence, source, model, input, input_checked, num_generations,
    content_hash, seed_chosen, priority, deadline, received_at, next_attempt_at, claim_expires_at, finished_at)
select 'r' || n, s, 1, 2, 'team-' || n % 7, 'm', '{}', true, 1,
    decode(md5(n::text), 'hex'), false, n % 10, now() + interval '30 days', now(), '-infinity',
    case s when 'submitting' then now() + interval '1 hour' end, case s when 'succeeded' then now() end
from (select n, (case when n % 25 <> 0 then 'succeeded' when n <= 15000 then 'submitted' when n <= 22500 then 'accepted'
    else 'submitting' end)::request_state as s from generate_series(1, 25000) n) as made;
insert into outputs (generation_id, request_id, index, status, stored_at, ended_at)
select 'g' || request_id, request_id, 0, s::output_status, now(), finished_at
from requests, lateral (select case when finished_at is null then 'queued' else 'succeeded' end as s) as now_it_is
where state in ('submitted', 'succeeded');
insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at)
select gen_random_uuid(), request_id, s, true, s = 3, 'k', 'k', '\\x00', now()
from requests cross join generate_series(1, 3) s;
insert into unpublished (row_id, request_id, sequence, stored)
select row_id, request_id, sequence, true from outbox where substr(request_id, 2)::int % 100 = 1;
insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at)
select gen_random_uuid(), 'n' || -n, 1, false, true, 'k', 'k', '\\x00', now() from generate_series(1, 20000) n;
insert into orphan_events (generation_id, status, received_at)
select 'o' || n, 'succeeded', now() from generate_series(1, 20000) n;
insert into early_cancels select 'early' || n, now() from generate_series(1, 5000) n;
insert into leadership values ('default', 'first', 1, now() + interval '1 hour', now());
analyze
"""
BACKLOG = """
update requests set finished_at = null, state = 'accepted'
    where substr(request_id, 2)::int > 5000 and state = 'succeeded';
update requests set state = 'submitting', claim_expires_at = '2000-01-01'
    where substr(request_id, 2)::int between 1 and 9000 and state = 'submitted';
insert into unpublished (row_id, request_id, sequence, stored)
    select row_id, request_id, sequence, true from outbox where substr(request_id, 2)::int > 15000
    on conflict do nothing;
analyze requests, outbox, unpublished
"""
# 220,000 more: 10,000 wait, as many in a namespace that is held, and 200,000 are backed off, all of one source.
BACKED_OFF = """
insert into requests (request_id, state, version, sequence, source, model, input, input_checked, num_generations,
    target_namespace, content_hash, seed_chosen, priority, deadline, received_at, next_attempt_at)
select 'b' || n, 'accepted', 1, 2, 'team-0', 'm', '{}', true, 1, case when n % 22 = 1 then 'held' end,
    decode(md5('b' || n), 'hex'), true, n % 10, now() + interval '30 days', now(),
    case when n % 22 > 1 then '2090-01-01' else '-infinity' end::timestamptz + n * interval '1 second'
from generate_series(1, 220000) n;
analyze requests
"""
SOURCES = "update requests set source = 'team-' || substr(request_id, 2)::int % 500 where state = 'accepted'"
IDS = [f"r{number}" for number in range(25, 2525, 25)]
FIVE_HUNDRED = [f"r{number}" for number in range(25, 12525, 25)]  # all of them at the hub
FRESH = [f"new{number}" for number in range(500)]


def _apply(ids: list[str], *, known: bool = False) -> list[Any]:
    """The arguments of 500 decisions, each with an output, new or known, and an event."""
    size = len(ids)
    none, zero, no = [None] * size, [0] * size, [False] * size
    head = [ids, [1] * size, ["succeeded"] * size, [4] * size, [NOW] * size, [NOW] * size]
    requests = [*head, none, none, zero, none, none]
    generations, index = [f"{'g' if known else 'new'}{key}" for key in ids], zero if known else [1] * size
    outputs = [generations, ids, index, ["succeeded"] * size, ["video"] * size, none, none, no, none]
    uuids = [uuid4() for _ in ids]
    body = [b"x" * 900] * size
    events = [uuids, ids, [4] * size, [True] * size, ["generation.succeeded"] * size, body, none, none, none, none]
    return [*requests, *([[]] * 9 if known else outputs), *(outputs if known else [[]] * 9), *events, NOW]


def _insert() -> list[Any]:
    size = len(FRESH)
    none = [None] * size
    head = [FRESH, ["team"] * size, ["m"] * size, ["{}"] * size, [True] * size, [1] * size, none, [b"x"] * size]
    tail = [none, [False] * size, [4] * size, [LATER] * size, none, none, none, none, none]
    return [*head, *tail, [uuid4() for _ in FRESH], [b"x"] * size, NOW]


ARGUMENTS: dict[str, list[Any]] = {
    "claim": [64, "first", 30, LATER, [], None, "", "default", None, None],
    "promote": [LATER, 1000],
    "load_requests": [IDS],
    "load_owners": [[f"g{key}" for key in IDS]],
    "apply": _apply(IDS),
    "due_events": [LATER, 500, list(range(1, 500))],
    "mark_published": [list(range(1, 500)), "default", 1],
    "mark_failed": [list(range(1, 500)), [LATER] * 499],
    "expired_claims": [None, 500],
    "lost_claim": ["first", NOW],
    "doubts": [500],
    "owned": [[f"g{key}" for key in IDS]],
    "heard_of": [[f"o{number}" for number in range(100)], "default"],
    "matched_orphans": [500],
    "in_flight": [],
    "insert_requests": _insert(),
    "repeat_requests": [IDS, [b"\x00"] * 100, [None] * 100, ["inbox"] * 100, NOW],
    "known_requests": [IDS],
    "pending": [LATER],
    "outbox_backlog": [1000],
    "last_event": [],
    "count_by_state": [],
    "delete_ended_requests": [NOW - timedelta(days=30), 1000],
    "delete_old_answers": [NOW - timedelta(days=30), 1000],
    "delete_old_orphans": [NOW - timedelta(days=30), 1000],
    "delete_old_cancels": [NOW - timedelta(days=30), 1000],
    "overdue": [NOW - timedelta(days=1), 200],
    "stopping": [NOW, 200],
    "keep_early_cancels": [IDS, NOW],
    "matched_cancels": [500],
    "forget_cancels": [IDS],
    "repeat_ends": [IDS, [None] * 100, [None] * 100, NOW],
    "find_requests": [IDS],
    "page_requests": [["accepted", "succeeded", "in_doubt"], 2**63 - 1, 100],
    "content_of": ["r1"],
    "early_cancel": ["r1"],
    "events_of": ["r1"],
    "overview": ["default", 1000],
    "open_requests": [["accepted", "submitting", "in_doubt", "submitted", "cancelling"], 100_000],
    "count_in_flight": [],
}
INDEXES = {
    "claim": {"requests_due", "requests_pkey"},
    "promote": {"requests_backed_off", "requests_pkey"},
    "load_requests": {"requests_pkey", "outputs_pkey"},
    "load_owners": {"outputs_generation", "requests_pkey", "outputs_pkey"},
    "apply": {"requests_pkey"},
    "due_events": {"unpublished_pkey", "unpublished_backed_off", "outbox_pkey"},
    "mark_published": {"unpublished_pkey"},
    "mark_failed": {"unpublished_pkey"},
    "expired_claims": {"requests_claimed"},
    "lost_claim": {"requests_claimed"},
    "doubts": {"requests_in_doubt"},
    "owned": {"outputs_generation"},
    "heard_of": {"orphan_events_pkey"},
    "matched_orphans": {"orphan_events_pkey", "outputs_active"},
    "in_flight": {"outputs_active"},
    "insert_requests": set(),
    "repeat_requests": {"requests_pkey", "outbox_sequence"},
    "known_requests": {"requests_pkey"},
    "pending": {
        *("requests_backed_off", "requests_due", "unpublished_pkey", "requests_claimed", "requests_in_doubt"),
        *("requests_cancelling", "requests_deadline"),
    },
    "outbox_backlog": set(),
    "last_event": {"unpublished_pkey"},
    "delete_ended_requests": {"requests_ended", "requests_pkey", "outbox_sequence", "unpublished_pkey"},
    "delete_old_answers": {"outbox_answers", "outbox_pkey", "unpublished_pkey"},
    "delete_old_orphans": {"orphan_events_age", "orphan_events_pkey"},
    "delete_old_cancels": {"early_cancels_age", "requests_pkey"},
    "overdue": {"requests_deadline"},
    "stopping": {"requests_cancelling", "outputs_pkey"},
    "keep_early_cancels": set(),
    "matched_cancels": {"requests_pkey"},
    "forget_cancels": {"early_cancels_pkey"},
    "repeat_ends": {"requests_pkey", "outbox_sequence"},
    "find_requests": {"requests_pkey", "outputs_pkey"},
    "page_requests": {"requests_listed", "requests_pkey", "outputs_pkey"},
    "content_of": {"requests_pkey"},
    "early_cancel": {"early_cancels_pkey"},
    "events_of": {"outbox_sequence", "outbox_answers_of", "unpublished_pkey"},
    "overview": {"unpublished_pkey", "outbox_pkey", "requests_listed"},
    "open_requests": {"requests_listed"},
    "count_in_flight": {"outputs_active"},
}


# With these, the server's own settings lead to a sequential scan now and then; it is what SESSION is for.
UNSTEADY = {"load_requests", "load_owners", "matched_orphans", "pending", "matched_cancels", "forget_cancels"} | {
    *("mark_published", "mark_failed", "outbox_backlog"),  # there is little to be marked, at rest
    *("find_requests", "page_requests", "overview", "open_requests", "count_in_flight"),
    *(n for n in INDEXES if n.startswith("delete_")),
}


@pytest_asyncio.fixture(scope="module")
async def filled(servers: Servers, template: str) -> AsyncIterator[str]:
    """A database that has seen much; its plans are looked at, and nothing in it is changed for good."""
    url = await servers.make_database(template)
    connection = await asyncpg.connect(url)
    await connection.execute(FILL)
    await connection.close()
    yield url
    await servers.drop_database(url)


async def _prepared(url: str, settings: dict[str, str]) -> Sql:
    connection = await asyncpg.connect(url, server_settings=settings)
    for name, text in statements().items():
        await connection.execute(f"prepare {name} as {text}")
    return connection


@pytest_asyncio.fixture(scope="module")
async def planner(filled: str) -> AsyncIterator[Sql]:
    """A session as the service opens it, with every statement prepared."""
    connection = await _prepared(filled, SESSION)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module")
async def plain(filled: str) -> AsyncIterator[Sql]:
    """A session with the server's own settings, with every statement prepared."""
    connection = await _prepared(filled, {})
    yield connection
    await connection.close()


async def explain(
    session: Sql, name: str, mode: str, *, analyze: bool = False, given: list[Any] | None = None
) -> dict[str, Any]:
    """The plan of a prepared statement; what it did is rolled back."""
    arguments = ",".join(map(_literal, given or ARGUMENTS[name]))
    options = "analyze, format json" if analyze else "format json"
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute(f"set local plan_cache_mode = {mode}")
        text = await session.fetchval(f"explain ({options}) execute {name}" + (f"({arguments})" if arguments else ""))
    finally:
        await transaction.rollback()
    document: dict[str, Any] = json.loads(text)[0]
    return document


def _literal(value: object) -> str:
    """A parameter as SQL text of no type of its own: it takes that of the parameter."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return "'{" + ",".join("null" if item is None else f'"{_text(item)}"' for item in value) + "}'"
    return f"'{_text(value)}'"


def _text(value: object) -> str:
    return "\\\\x" + value.hex() if isinstance(value, bytes) else str(value).replace('"', '\\"')


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def judge(name: str, plan: dict[str, Any]) -> None:
    """No big table is read from end to end, and the indexes that were made for the statement are used."""
    found = list(nodes(plan))
    read_whole = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"} & BIG
    assert not read_whole, f"{name} reads {read_whole} from end to end"
    used = {node["Index Name"] for node in found if "Index Name" in node}
    assert used >= INDEXES[name]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", sorted(INDEXES))
async def test_a_statement_goes_by_its_indexes(planner: Sql, name: str, mode: str) -> None:
    judge(name, (await explain(planner, name, mode))["Plan"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", sorted(set(INDEXES) - UNSTEADY))
async def test_the_hottest_statements_need_no_setting_for_it(plain: Sql, name: str, mode: str) -> None:
    judge(name, (await explain(plain, name, mode))["Plan"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "given"),
    [("apply", _apply(FIVE_HUNDRED)), ("apply", _apply(FIVE_HUNDRED, known=True)), ("insert_requests", _insert())],
)
async def test_a_batch_is_joined_by_hashing_and_never_each_row_with_each(
    planner: Sql, name: str, given: list[Any], mode: str
) -> None:
    document = await explain(planner, name, mode, analyze=True, given=given)
    print(f"{name}, {mode}: {document['Execution Time']:.1f} ms")  # noqa: T201 - a measurement, for whoever looks
    for node in nodes(document["Plan"]):
        if node["Node Type"] == "Nested Loop":
            assert "CTE Scan" not in {child["Node Type"] for child in node["Plans"][1:]}, node
        assert node.get("Rows Removed by Join Filter", 0) < 1000


async def test_a_plan_that_was_made_while_the_tables_were_empty_goes_by_indexes_too(database_url: str) -> None:
    session = await asyncpg.connect(database_url, server_settings=SESSION)
    for name in INDEXES:
        await session.execute(f"prepare {name} as {statements()[name]}")
        found = nodes((await explain(session, name, "force_generic_plan"))["Plan"])
        read_whole = {node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"} & BIG
        assert not read_whole, f"{name} reads {read_whole} from end to end"
    await session.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["claim", "due_events", "expired_claims"])
async def test_a_batch_is_taken_from_a_long_backlog_without_reading_the_backlog(
    planner: Sql, name: str, mode: str
) -> None:
    transaction = planner.transaction()
    await transaction.start()
    try:
        await planner.execute(BACKLOG)
        document = await explain(planner, name, mode, analyze=True)
    finally:
        await transaction.rollback()
    found = list(nodes(document["Plan"]))
    read = sum(node["Actual Rows"] * node["Actual Loops"] for node in found if "Index" in node["Node Type"])
    assert read < 2500, f"{name} reads {read} rows of 20,000 that wait"


async def test_a_long_backlog_is_counted_up_to_a_bound_without_reading_the_rest(planner: Sql) -> None:
    waiting = ["accepted"]
    async with planner.transaction():
        assert [row["count"] for row in await planner.fetch(statements()["open_requests"], waiting, 100)] == [100]
    document = await explain(planner, "open_requests", MODES[0], analyze=True, given=[waiting, 100])
    read = max(node["Actual Rows"] for node in nodes(document["Plan"]) if node.get("Index Name") == "requests_listed")
    assert read <= 100, f"{read} rows of 300 that wait"


async def test_a_plan_of_due_events_that_was_made_at_rest_is_good_in_a_burst(database_url: str) -> None:
    """It once looked through everything that waited for each event that it found."""
    session = await asyncpg.connect(database_url, server_settings=SESSION)
    await session.execute(FILL)
    await session.execute("delete from unpublished")
    await session.execute("analyze unpublished")
    await session.execute(f"prepare due_events as {statements()['due_events']}")
    await explain(session, "due_events", "force_generic_plan")
    await session.execute(
        "insert into unpublished (row_id, request_id, sequence, stored) "
        "select row_id, request_id, sequence, true from outbox where row_id % 100 < 2"
    )
    document = await explain(session, "due_events", "force_generic_plan", analyze=True)
    assert 500 <= _rows_read(document) < 1500
    await session.close()


def _rows_read(document: dict[str, Any], *indexes: str) -> float:
    """By way of these indexes; without any, of all."""
    read: float = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(document["Plan"])
        if "Index Name" in node and (not indexes or node["Index Name"] in indexes)
    )
    return read


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_backed_off_or_held_is_not_read_however_much_it_is(planner: Sql, mode: str) -> None:
    transaction = planner.transaction()
    await transaction.start()
    try:
        await planner.execute(BACKED_OFF)
        held = [64, "first", 30, NOW, ["held"], None, "", "default", None, None]
        read = {
            "claim": await explain(planner, "claim", mode, analyze=True, given=held),
            "pending": await explain(planner, "pending", mode, analyze=True, given=[LATER]),
            "promote": await explain(planner, "promote", mode, analyze=True, given=[LATER, 1000]),
        }
    finally:
        await transaction.rollback()
    for name, document in read.items():
        print(f"{name}, {mode}: {document['Execution Time']:.1f} ms")  # noqa: T201 - a measurement, for whoever looks
    assert _rows_read(read["claim"]) < 2500
    assert _rows_read(read["pending"], "requests_due", "requests_backed_off") < 50
    assert _rows_read(read["promote"]) < 50


@pytest.mark.parametrize("mode", MODES)
async def test_many_sources_cost_no_more_than_their_number(planner: Sql, mode: str) -> None:
    transaction = planner.transaction()
    await transaction.start()
    try:
        await planner.execute(BACKLOG)
        await planner.execute(SOURCES)
        document = await explain(planner, "claim", mode, analyze=True)
    finally:
        await transaction.rollback()
    assert _rows_read(document) < 2500, "500 sources, each with 40 that wait"


LIMITED = [64, "first", 30, NOW, [], None, "", "default", 10.0, 500]


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_in_flight_is_counted_by_indexes(planner: Sql, mode: str) -> None:
    plan = (await explain(planner, "claim", mode, given=LIMITED))["Plan"]
    judge("claim", plan)
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    assert used >= {"outputs_active", "requests_claimed", "requests_in_doubt", "limits_pkey"}


async def test_no_statement_makes_the_driver_look_up_a_type_of_ours(planner: Sql) -> None:
    """It would in each session, for some milliseconds."""
    for name, text in statements().items():
        prepared = await planner.prepare(text)
        types = [*prepared.get_parameters(), *(column.type for column in prepared.get_attributes())]
        assert {kind.schema for kind in types} <= {"pg_catalog"}, name
