"""Limits that hold whoever claims: POSTs a second, generations in flight, and the pause that the hub has asked for."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from service.domain.claims import Claims, Limits
from service.domain.facts import NotSent, OutcomeUnknown
from service.domain.states import Request
from service.postgres.database import Database
from service.postgres.store import RequestStore
from tests.integration.builders import (
    LEASE_S,
    NOW,
    SECOND,
    Sql,
    accepted_by_hub,
    decided,
    new_request,
    stored,
    succeeded,
)

pytestmark = pytest.mark.asyncio


def limited(database: Database, rate_per_s: float | None = None, max_in_flight: int | None = None) -> RequestStore:
    """The store of a replica within limits."""
    return RequestStore(database, limits=Limits(rate_per_s, max_in_flight))


async def claim(store: RequestStore, limit: int = 64) -> Claims:
    return await store.claim(limit, "first", LEASE_S, NOW)


def ids(claims: Claims) -> list[str]:
    return [item.request.request_id for item in claims]


async def seconds_later(sql: Sql, seconds: float) -> None:
    """Moves the time of the limits, and nothing else."""
    await sql.execute(
        "update limits set refilled_at = refilled_at - make_interval(secs => $1),"
        " not_before = not_before - make_interval(secs => $1)",
        seconds,
    )


# -- POSTs a second ---------------------------------------------------------------------------------------------------


async def test_a_tenth_of_a_seconds_worth_goes_at_once_and_then_as_much_as_time_allows(
    database: Database, sql: Sql
) -> None:
    store = limited(database, rate_per_s=40)
    await stored(store, *(f"r-{number:02}" for number in range(60)))
    began = time.monotonic()
    first = await claim(store)
    assert ids(first) == ["r-00", "r-01", "r-02", "r-03"]
    second = await claim(store)
    allowed = math.floor(40 * (time.monotonic() - began))
    assert len(second) <= allowed
    assert 0 <= second.wait_s <= 1 / 40
    await seconds_later(sql, 3600)
    assert len(await claim(store)) == 4  # what was not used does not pile up


async def test_less_than_one_a_second_is_one_at_a_time_and_says_when_the_next_may_go(
    database: Database, sql: Sql
) -> None:
    store = limited(database, rate_per_s=0.2)
    await stored(store, "r-1", "r-2")
    assert ids(await claim(store)) == ["r-1"]
    waiting = await claim(store)
    assert len(waiting) == 0
    assert 4 < waiting.wait_s <= 5
    await seconds_later(sql, 4)
    assert len(await claim(store)) == 0
    await seconds_later(sql, 1)
    assert ids(await claim(store)) == ["r-2"]


async def test_a_claim_that_finds_less_than_it_may_take_keeps_the_rest_for_later(database: Database, sql: Sql) -> None:
    store = limited(database, rate_per_s=1000)
    await stored(store, "r-1")
    claims = await claim(store)
    assert (ids(claims), claims.wait_s) == (["r-1"], 0.0)
    assert await sql.fetchval("select tokens from limits") == 99


async def test_replicas_that_claim_at_the_same_time_share_the_rate(database: Database) -> None:
    stores = [limited(database, rate_per_s=100) for _ in range(4)]
    await stored(stores[0], *(f"r-{number:03}" for number in range(200)))
    began = time.monotonic()

    async def claim_for_a_while(store: RequestStore) -> int:
        got = 0
        while time.monotonic() - began < 0.5:
            claims = await claim(store)
            got += len(claims)
            await asyncio.sleep(claims.wait_s)
        return got

    got = sum(await asyncio.gather(*map(claim_for_a_while, stores)))
    assert got <= 10 + 100 * (time.monotonic() - began)
    assert got >= 10


async def test_without_limits_nothing_is_counted(store: RequestStore, sql: Sql) -> None:
    await stored(store, "r-1", "r-2")
    assert ids(await claim(store)) == ["r-1", "r-2"]
    assert await sql.fetchval("select count(*) from limits") == 0


# -- generations in flight --------------------------------------------------------------------------------------------


async def test_what_is_submitted_in_doubt_or_under_way_at_the_hub_counts(database: Database) -> None:
    store = limited(database, max_in_flight=3)
    await stored(store, *(f"r-{number}" for number in range(6)))
    claims = await claim(store)
    assert ids(claims) == ["r-0", "r-1", "r-2"]
    assert claims.wait_s == 0
    doubted, submitted, requeued = (item.request for item in claims)
    await store.apply([decided(doubted, OutcomeUnknown("reset"))], NOW)
    await store.apply([decided(submitted, accepted_by_hub("r-1"))], NOW)
    assert ids(await claim(store)) == []
    await store.apply([decided(requeued, NotSent("busy", NOW + SECOND))], NOW)
    assert ids(await claim(store)) == ["r-3"]
    await _end(store, "r-1")
    assert ids(await claim(store)) == ["r-4"]
    assert ids(await claim(store)) == []


async def test_a_request_counts_as_many_as_it_asks_for_and_nobody_passes_one_that_does_not_fit(
    database: Database,
) -> None:
    store = limited(database, max_in_flight=6)
    await stored(store, new_request("four", num_generations=4))
    await stored(store, new_request("three", num_generations=3))
    await stored(store, new_request("one"))
    assert ids(await claim(store)) == ["four"]
    assert ids(await claim(store)) == []
    four = (await store.load(["four"]))["four"]
    await store.apply([decided(four, accepted_by_hub("four", 4))], NOW)
    assert ids(await claim(store)) == []
    await _end(store, "four", outputs=1)
    assert ids(await claim(store)) == ["three"]
    assert ids(await claim(store)) == []
    await _end(store, "four", outputs=4)
    assert ids(await claim(store)) == ["one"]


async def test_one_that_is_larger_than_the_limit_goes_alone(database: Database) -> None:
    store = limited(database, max_in_flight=2)
    await stored(store, new_request("one"))
    await stored(store, new_request("four", num_generations=4))
    await stored(store, new_request("last"))
    assert ids(await claim(store)) == ["one"]
    assert ids(await claim(store)) == []
    one = (await store.load(["one"]))["one"]
    await store.apply([decided(one, NotSent("busy", NOW + SECOND))], NOW)
    assert ids(await claim(store)) == ["four"]
    assert ids(await claim(store)) == []


async def test_replicas_that_claim_at_the_same_time_never_exceed_the_limit_together(database: Database) -> None:
    stores = [limited(database, max_in_flight=10) for _ in range(6)]
    await stored(stores[0], *(new_request(f"r-{n:03}", num_generations=n % 4 + 1) for n in range(40)))
    claims = await asyncio.gather(*map(claim, stores))
    assert sum(item.request.num_generations for found in claims for item in found) == 10


async def _end(store: RequestStore, request_id: str, outputs: int = 1) -> Request:
    """The first so many of its generations have ended."""
    request = (await store.load([request_id]))[request_id]
    ends = [succeeded(f"g-{request_id}-{index}") for index in range(outputs)]
    await store.apply([decided(request, *ends)], NOW)
    return request


# -- the hub asks to wait ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(), Limits(rate_per_s=1000), Limits(max_in_flight=100)])
async def test_no_replica_claims_before_the_time_that_the_hub_has_asked_for(
    database: Database, sql: Sql, limits: Limits
) -> None:
    told, other = RequestStore(database), RequestStore(database, limits=limits)
    await stored(told, "r-1")
    await told.hold_off(30)
    await told.hold_off(5)
    claims = await claim(other)
    assert len(claims) == 0
    assert 29 < claims.hold_s <= 30
    await seconds_later(sql, 30)
    claims = await claim(other)
    assert (ids(claims), claims.hold_s) == (["r-1"], 0.0)


async def test_a_replica_that_freezes_while_it_holds_the_limits_does_not_hold_up_the_others(
    database: Database, sql: Sql
) -> None:
    store = limited(database, max_in_flight=5)
    await stored(store, "r-1")
    frozen = await database.dedicated()
    await frozen.execute("begin; insert into limits (lane) values ('default')")
    assert ids(await asyncio.wait_for(claim(store), 9)) == ["r-1"]
    frozen.terminate()
