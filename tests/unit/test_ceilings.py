"""The arithmetic of the ceilings: from CPU by replica to what bounds the whole."""

from __future__ import annotations

import pytest

from tests.bench.ceilings import Member, Split, cores_bound, even_bound, leader_bound, split

WORK = Split(own=0.25, shared=0.5)


def test_what_followers_pay_for_a_request_is_shared_work_and_the_rest_of_the_leaders_is_its_own() -> None:
    # 1,000 requests at 0.5 ms, wherever; the leader's own work is 0.25 ms for each of all.
    members = [Member(True, 0.25 + 0.1, 200), Member(False, 0.15, 300), Member(False, 0.25, 500)]
    found = split(members)
    assert found is not None
    assert found.own == pytest.approx(0.25)
    assert found.shared == pytest.approx(0.5)


def test_one_replica_alone_does_not_tell_what_others_could_take_from_it() -> None:
    assert split([Member(True, 1.0, 1000)]) is None


def test_more_replicas_bring_more_until_the_leader_does_nothing_but_its_own_work() -> None:
    bounds = [leader_bound(WORK, replicas) for replicas in (1, 2, 3, 4)]
    assert [round(bound) for bound in bounds] == [1333, 2667, 4000, 4000]


def test_shared_evenly_the_leader_is_full_sooner() -> None:
    assert even_bound(WORK, 1) == leader_bound(WORK, 1)
    assert even_bound(WORK, 2) == 2000 < leader_bound(WORK, 2)


def test_a_server_does_as_much_as_its_cores() -> None:
    assert cores_bound(0.5, 4) == 8000
