"""Claims: fair, in order, and never twice."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from service.domain.facts import FoundUpstream, NotFoundUpstream, NotSent, OutcomeUnknown
from service.domain.messages import Pending
from service.domain.states import RequestState
from service.postgres.statements import statements
from service.postgres.store import RequestStore
from tests.integration.builders import LEASE_S, NOW, SECOND, Sql, claimed, decided, new_request, stored

pytestmark = pytest.mark.asyncio


async def claim(store: RequestStore, limit: int, holder: str = "first") -> list[str]:
    """The ids of one claim, in the order of the store's answer."""
    return [item.request.request_id for item in await store.claim(limit, holder, LEASE_S, NOW)]


async def test_a_claim_is_one_more_attempt_and_carries_what_the_hub_is_to_be_sent(store: RequestStore) -> None:
    await stored(store, "r-1")
    asked = time.monotonic()
    (item,) = await store.claim(5, "first", LEASE_S, NOW)
    assert item.request.state is RequestState.SUBMITTING
    assert (item.request.attempts, item.request.version) == (1, 2)
    assert item.input == {"prompt": "r-1"}
    assert item.input_checked
    assert asked + LEASE_S <= item.expires <= time.monotonic() + LEASE_S


async def test_a_source_that_sent_many_does_not_starve_those_that_sent_few(store: RequestStore) -> None:
    await stored(store, *(new_request(f"many-{number:04}", source="many") for number in range(1000)))
    await stored(store, *(new_request(f"few-{number}", source="few") for number in range(3)))
    await stored(store, new_request("one", source="one"))
    ids = await claim(store, 8)
    assert {"one", "few-0", "few-1", "few-2"} < set(ids)
    assert {"many-0000", "many-0001", "many-0002", "many-0003"} < set(ids)


async def test_within_a_source_priority_comes_first_and_then_age(store: RequestStore) -> None:
    await stored(
        store,
        new_request("low", priority=0),
        new_request("older", priority=5),
        new_request("younger", priority=5),
        new_request("high", priority=9),
    )
    assert [await claim(store, 1) for _ in range(4)] == [["high"], ["older"], ["younger"], ["low"]]


async def test_a_priority_never_passes_over_another_source(store: RequestStore) -> None:
    await stored(store, *(new_request(f"urgent-{n}", source="urgent", priority=9) for n in range(5)))
    await stored(store, new_request("plain", source="plain", priority=0))
    assert "plain" in await claim(store, 2)


async def test_a_request_that_waits_for_its_next_attempt_is_passed_over_until_then(store: RequestStore) -> None:
    (request,) = await claimed(store, "r-1")
    await store.apply([decided(request, NotSent("the hub is away", NOW + 10 * SECOND))], NOW)
    await stored(store, "r-2")
    assert await claim(store, 5) == ["r-2"]
    assert await store.pending(NOW + 9 * SECOND) == Pending(
        retries=False, requests=False, events=True, claims=False, doubts=False, stops=False, cancels=False
    )
    assert (await store.pending(NOW + 10 * SECOND)).retries
    assert await store.promote(10, NOW + 9 * SECOND) == 0
    assert await store.promote(10, NOW + 10 * SECOND) == 1
    assert (await store.pending(NOW)).requests
    later = await store.claim(5, "first", LEASE_S, NOW + 10 * SECOND)
    assert [item.request.request_id for item in later] == ["r-1"]
    assert later[0].request.attempts == 2


async def test_claimers_at_once_never_get_the_same_request_and_leave_none(store: RequestStore) -> None:
    ids = {f"r-{number:03}" for number in range(300)}
    await stored(store, *ids)

    async def claim_all(holder: str) -> list[str]:
        got: list[str] = []
        while batch := await claim(store, 7, holder):
            got += batch
        return got

    shares = await asyncio.gather(*(claim_all(f"replica-{number}") for number in range(6)))
    everything = [request_id for share in shares for request_id in share]
    # A claimer that finds all of its candidates locked ends early; what is left is there for the next look.
    everything += await claim_all("last")
    assert sorted(everything) == sorted(ids)


async def test_a_claim_does_not_wait_for_another_that_is_not_committed_and_takes_what_is_left(
    store: RequestStore, sql: Sql
) -> None:
    await stored(store, *(f"r-{number}" for number in range(10)))
    async with sql.transaction():
        asked: tuple[object, ...] = (4, "second", LEASE_S, NOW, [], None, "", "default", None, None)
        first = {row["request_id"] for row in await sql.fetch(statements()["claim"], *asked)}
        assert first == {"r-0", "r-1", "r-2", "r-3"}
        assert set(await asyncio.wait_for(claim(store, 10), 2)) == {f"r-{number}" for number in range(4, 10)}


async def test_the_seed_that_the_service_chose_is_sent_and_one_that_was_given_is_not_doubled(
    store: RequestStore, sql: Sql
) -> None:
    await stored(store, new_request("chosen", seed=7), new_request("given", seed=8))
    await sql.execute("update requests set seed_chosen = true where request_id = 'chosen'")
    inputs = {item.request.request_id: item.input for item in await store.claim(2, "first", LEASE_S, NOW)}
    assert inputs["chosen"] == {"prompt": "chosen", "seed": 7}
    assert "seed" not in inputs["given"]


async def test_a_claim_that_ran_out_without_a_word_is_found(store: RequestStore) -> None:
    await stored(store, "lost", "answered")
    found = await store.claim(2, "first", LEASE_S, NOW)
    answered = next(item.request for item in found if item.request.request_id == "answered")
    await store.apply([decided(answered, OutcomeUnknown("cut off"))], NOW)
    assert await store.expired_claims(10) == []
    assert await store.expired_claims(10, found[0].began_at + timedelta(days=36500)) == [("lost", 1)]


async def test_a_claim_that_ran_out_is_something_to_wake_up_for(store: RequestStore) -> None:
    await stored(store, "r-1")
    assert (await store.pending(NOW)).requests
    await store.claim(1, "first", 0.0, NOW)
    assert await store.pending(NOW) == Pending(
        retries=False, requests=False, events=True, claims=True, doubts=False, stops=False, cancels=False
    )
    assert await store.expired_claims(10) == [("r-1", 1)]
    assert await store.count_by_state() == {"submitting": 1}


async def test_content_without_a_mark_of_ours_is_submitted_or_in_doubt_once_at_a_time(store: RequestStore) -> None:
    await stored(store, *(new_request(f"twin-{index}", content="same") for index in range(3)), "other")
    (first,) = [item for item in await store.claim(10, "first", LEASE_S, NOW) if item.request.request_id != "other"]
    assert not await store.claim(10, "second", LEASE_S, NOW)
    await store.apply([decided(first.request, OutcomeUnknown("reset"))], NOW)
    assert not await store.claim(10, "second", LEASE_S, NOW)
    (doubt,) = await store.doubts(10)
    assert (doubt.request.request_id, doubt.parameters, doubt.doubted_at) == ("twin-0", {"prompt": "same"}, NOW)
    await store.apply([decided(doubt.request, FoundUpstream(("g0",)))], NOW)
    assert [item.request.request_id for item in await store.claim(10, "second", LEASE_S, NOW)] == ["twin-1"]


async def test_a_look_that_finds_nothing_is_counted_and_a_resubmission_begins_anew(store: RequestStore) -> None:
    (request,) = await claimed(store, "r-1")
    await store.apply([decided(request, OutcomeUnknown("reset"))], NOW)
    for looks in range(2):
        (doubt,) = await store.doubts(10)
        assert doubt.request.doubt_looks == looks
        await store.apply([decided(doubt.request, NotFoundUpstream(1, looks + 1))], NOW + SECOND)
    assert await store.doubts(10) == []
    assert await store.promote(10, NOW + SECOND) == 1
    (again,) = await store.claim(10, "second", LEASE_S, NOW + SECOND)
    assert (again.request.attempts, again.request.doubt_looks) == (2, 0)


# -- fairness ---------------------------------------------------------------------------------------------------------

MANY = """
insert into requests (request_id, state, version, sequence, source, model, input, input_checked, num_generations,
    content_hash, seed_chosen, priority, deadline, received_at, next_attempt_at)
select $1 || '-' || n, 'accepted', 1, 1, $1, 'm', '{}', true, 1, sha256(convert_to($1 || n, 'utf8')), false, 4,
    $3::timestamptz + interval '1 day', $3, '-infinity'
from generate_series(1, $2::integer) n
"""


async def test_ten_of_a_source_are_not_delayed_by_ten_thousand_of_another(store: RequestStore, sql: Sql) -> None:
    await sql.execute(MANY, "many", 10_000, NOW)
    await stored(store, *(new_request(f"few-{number}", source="few") for number in range(10)))
    claimed_first = await claim(store, 64)
    assert {f"few-{number}" for number in range(10)} < set(claimed_first)
    assert len(claimed_first) == 64


async def test_not_even_where_a_claim_has_room_for_one(store: RequestStore, sql: Sql) -> None:
    await sql.execute(MANY, "many", 10_000, NOW)
    await stored(store, *(new_request(f"few-{number}", source="few") for number in range(10)))
    sources, after = [], ""
    for _ in range(21):
        (item,) = await store.claim(1, "first", LEASE_S, NOW, after=after)
        after = item.request.source
        sources.append(after)
    assert sources == ["few", "many"] * 10 + ["many"]


async def test_sources_have_their_turns_one_after_the_other_where_there_are_more_than_a_claim_has_room_for(
    store: RequestStore,
) -> None:
    news = [new_request(f"{source}-{number}", source=source) for source in "abcde" for number in range(3)]
    await stored(store, *news)
    turns, after = "", ""
    for _ in range(8):
        claims = await store.claim(2, "first", LEASE_S, NOW, after=after)
        after = claims[-1].request.source
        turns += "".join(item.request.source for item in claims)
    assert turns == "abcdeabcdeabcde"


async def test_claims_are_answered_in_the_order_in_which_they_came_up(store: RequestStore) -> None:
    await stored(store, *(new_request(f"a-{n}", source="a", priority=n) for n in range(4)))
    await stored(store, *(new_request(f"b-{n}", source="b", priority=n) for n in range(2)))
    assert await claim(store, 10) == ["a-3", "b-1", "a-2", "b-0", "a-1", "a-0"]


async def test_a_held_namespace_is_passed_over_and_only_it_can_be_asked_for(store: RequestStore) -> None:
    await stored(
        store,
        new_request("own"),
        new_request("held", target_namespace="unpaid"),
        new_request("other", target_namespace="paid", priority=0),
    )
    claims = await store.claim(10, "first", LEASE_S, NOW, held=["unpaid"])
    assert [item.request.request_id for item in claims] == ["own", "other"]
    claims = await store.claim(10, "first", LEASE_S, NOW, only="unpaid")
    assert [item.request.request_id for item in claims] == ["held"]


async def test_priority_counts_across_the_namespaces_of_a_source(store: RequestStore) -> None:
    namespaces = [None, "acme", "globex"]
    news = [new_request(f"r-{n}", priority=n, target_namespace=namespaces[n % 3]) for n in range(9)]
    await stored(store, *news)
    assert await claim(store, 10) == [f"r-{n}" for n in range(8, -1, -1)]


async def test_a_claim_that_others_left_empty_handed_says_so(store: RequestStore, sql: Sql) -> None:
    await stored(store, *(f"r-{number}" for number in range(6)))
    async with sql.transaction():
        await sql.fetch("select from requests for update")
        assert (await store.claim(2, "first", LEASE_S, NOW)).contended
    claims = await store.claim(10, "first", LEASE_S, NOW)
    assert (len(claims), claims.contended) == (6, False)
