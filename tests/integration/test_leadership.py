"""One replica leads: two in one process on one database, with the real lease row between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
import pytest_asyncio

from service.domain.errors import DatabaseUnavailableError
from service.postgres.database import Database
from service.postgres.leader import CHANNEL, LeaseStore
from service.postgres.notifications import Notifications
from service.postgres.outbox import Outbox
from service.supervisor import Component
from service.telemetry import Metrics
from service.workers import leadership as module
from service.workers.leadership import Leadership
from service.workers.settler import Elsewhere
from service.workers.wakeups import Wakeups
from tests.integration.builders import Sql
from tests.support.broker import wait_ready

pytestmark = pytest.mark.asyncio


class Work:
    """What a leader runs: notes when it begins, ends and drains."""

    name = "work"

    def __init__(self, log: list[str], term: int, broken: asyncio.Event, may_drain: asyncio.Event) -> None:
        self._log = log
        self._term = term
        self._broken = broken
        self._may_drain = may_drain

    async def run(self) -> None:
        """Works until cancelled."""
        self._log.append(f"begun {self._term}")
        try:
            await self._broken.wait()
            raise RuntimeError("told to break")
        finally:
            self._log.append(f"ended {self._term}")

    async def drain(self) -> None:
        """Finishes, when it may."""
        await self._may_drain.wait()
        self._log.append(f"drained {self._term}")


class Severed(LeaseStore):
    """The lease, of which nothing can be given back any more once `crashed`."""

    crashed = False

    async def give_back(self) -> None:
        """As ever, before that."""
        if self.crashed:
            raise DatabaseUnavailableError("It has crashed.")
        await super().give_back()


class Replica:
    """A leadership that runs."""

    def __init__(self, database: Database, holder: str) -> None:
        self.log: list[str] = []
        self.broken = asyncio.Event()
        self.may_drain = asyncio.Event()
        self.may_drain.set()
        self.lease = Severed(database, holder)
        self.elsewhere = Elsewhere(Outbox(database))
        self.metrics = Metrics()
        self.wakeups = Wakeups()
        self.leadership = Leadership(self.lease, self.elsewhere, self.wakeups, self.metrics, self._components)
        self.running = asyncio.create_task(self.leadership.run())

    def _components(self, term: int) -> Sequence[Component]:
        return (Work(self.log, term, self.broken, self.may_drain),)

    @property
    def leading(self) -> bool:
        """Whether it holds the lease by its own clock, and says so everywhere."""
        told = self.metrics.registry.get_sample_value("drover_leading") == 1.0
        return self.leadership.leading and self.elsewhere.leading and told

    async def stop(self) -> None:
        """Ends it as a crash would: the lease is not given back."""
        self.lease.crashed = True
        await self.end()

    async def end(self) -> None:
        """Ends it as the end of the process does, whatever has become of its drain."""
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running


@pytest_asyncio.fixture
async def pair(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Replica, Replica]]:
    """A leader and a second replica; the lease is a fifth as long as in production, with the same proportions."""
    for name in ("LEASE_S", "RENEW_S", "WATCH_S"):
        monkeypatch.setattr(module, name, getattr(module, name) / 5)
    first = Replica(database, "first")
    await wait_ready(lambda: first.leading)
    second = Replica(database, "second")
    yield first, second
    await second.stop()
    await first.stop()


async def test_only_one_of_two_leads_and_goes_on_leading(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    until = time.monotonic() + 1.5 * module.LEASE_S
    while time.monotonic() < until:
        assert first.leading
        assert not second.leading
        await asyncio.sleep(0.05)  # watching over time is the point
    assert first.log == ["begun 1"]
    assert second.log == []


async def test_a_leader_that_dies_is_followed_within_the_lease(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    await first.stop()
    died = time.monotonic()
    assert not first.elsewhere.leading
    await wait_ready(lambda: second.leading)
    assert time.monotonic() - died < module.LEASE_S + 2 * module.RENEW_S
    assert first.log[-1] == "ended 1"
    await wait_ready(lambda: second.log == ["begun 2"])


async def test_a_leader_that_drains_is_followed_at_once(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    await first.leadership.drain()
    drained = time.monotonic()
    assert first.log == ["begun 1", "drained 1", "ended 1"]
    await wait_ready(lambda: second.leading)
    assert time.monotonic() - drained < module.RENEW_S + 0.3  # its next look; a lease would take much longer
    assert not first.leading


async def test_a_replica_that_hears_of_the_lease_given_back_takes_it_at_once(
    pair: tuple[Replica, Replica], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(module, "RENEW_S", 60.0)
    listening = asyncio.create_task(Notifications(database, {CHANNEL: second.wakeups.lease}).run())
    try:
        await asyncio.sleep(0.5)  # both are in the long wait now, and it listens
        await first.leadership.drain()
        await wait_ready(lambda: second.leading, 2)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_drain_that_is_cut_off_leaves_nothing_running(pair: tuple[Replica, Replica]) -> None:
    """Its components hang, and the process ends: nothing may go on acting for a leader that is no more."""
    first, second = pair
    first.may_drain.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await first.leadership.drain()
    await first.end()
    assert first.log == ["begun 1", "ended 1"]
    ended = time.monotonic()
    await wait_ready(lambda: second.leading)
    assert time.monotonic() - ended < module.RENEW_S + 0.3  # the lease was given back all the same


async def test_a_long_drain_keeps_the_lease_as_long_as_it_works(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    first.may_drain.clear()
    draining = asyncio.create_task(first.leadership.drain())
    until = time.monotonic() + 1.5 * module.LEASE_S
    while time.monotonic() < until:
        assert first.log == ["begun 1"]
        assert not second.leading
        await asyncio.sleep(0.05)  # watching over time is the point
    first.may_drain.set()
    await draining
    await wait_ready(lambda: second.leading)


async def test_a_lease_that_is_granted_while_a_replica_drains_is_given_back(
    pair: tuple[Replica, Replica], database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(module, "RENEW_S", 60.0)
    second.wakeups.lease.set()
    await wait_ready(lambda: not (second.wakeups.lease.is_set() or second.leadership._asking.locked()))
    await first.leadership.drain()  # the second one looks no more until it is told to
    async with sql.transaction():
        await sql.execute("lock table leadership in access exclusive mode")
        second.wakeups.lease.set()
        await wait_ready(second.leadership._asking.locked)
        draining = asyncio.create_task(second.leadership.drain())
        await asyncio.sleep(0.05)  # it would be over by now, did it not wait for the answer
    await draining
    await second.end()
    assert await LeaseStore(database, "third").take(1) is not None


async def test_a_leader_that_drains_gives_the_lease_back_though_it_ran_out_and_was_renewed_late(
    pair: tuple[Replica, Replica],
) -> None:
    first, second = pair
    first.may_drain.clear()
    draining = asyncio.create_task(first.leadership.drain())
    await asyncio.sleep(0)
    await first.leadership._step_down("the lease ran out")
    await first.lease.take(600)  # the late answer
    first.may_drain.set()
    await draining
    await wait_ready(lambda: second.leading)


async def test_a_drained_replica_competes_no_more(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    await first.leadership.drain()
    await second.leadership.drain()
    await asyncio.sleep(2 * module.RENEW_S)
    assert not first.leading
    assert not second.leading


async def test_a_replica_that_drains_without_leading_leaves_a_free_lease_to_others(
    pair: tuple[Replica, Replica], database: Database
) -> None:
    first, second = pair
    await second.leadership.drain()
    await first.leadership.drain()
    await asyncio.sleep(2 * module.RENEW_S)  # long enough for it to have looked at the lease
    assert await LeaseStore(database, "third").take(1) is not None


async def test_a_step_down_that_was_cut_off_does_not_keep_a_replica_from_leading_again(
    pair: tuple[Replica, Replica],
) -> None:
    first, _ = pair
    stepping_down = asyncio.create_task(first.leadership._step_down("told to"))
    await asyncio.sleep(0)  # it waits for the components now
    stepping_down.cancel()
    await asyncio.gather(stepping_down, return_exceptions=True)
    assert stepping_down.cancelled()
    await wait_ready(lambda: first.leading)


async def test_a_leader_whose_row_was_taken_stops_at_its_next_renewal(pair: tuple[Replica, Replica], sql: Sql) -> None:
    first, second = pair
    await sql.execute("update leadership set holder = 'thief', term = term + 1, expires_at = now() + interval '1 hour'")
    await wait_ready(lambda: not first.leading)
    await wait_ready(lambda: first.log == ["begun 1", "ended 1"])
    assert not second.leading


async def test_a_leader_that_cannot_renew_stops_at_the_end_of_its_lease_by_its_own_clock(
    pair: tuple[Replica, Replica], sql: Sql
) -> None:
    first, _ = pair
    async with sql.transaction():
        await sql.execute("lock table leadership in access exclusive mode")
        locked = time.monotonic()
        await wait_ready(lambda: not first.leading)
        await wait_ready(lambda: first.log == ["begun 1", "ended 1"])
        assert time.monotonic() - locked < module.LEASE_S + 2 * module.WATCH_S


async def test_a_lease_that_was_granted_too_late_to_act_on_is_not_acted_on(
    pair: tuple[Replica, Replica], sql: Sql
) -> None:
    """The database was slow: by the clock of the one who asked, the lease ran out before the answer came."""
    first, second = pair
    async with sql.transaction():
        await sql.execute("lock table leadership in access exclusive mode")
        await wait_ready(lambda: first.log == ["begun 1", "ended 1"])
        await asyncio.sleep(module.LEASE_S)  # the next question, too, waits for longer than the lease
    await wait_ready(lambda: first.leading or second.leading)
    await asyncio.sleep(2 * module.WATCH_S)  # whoever had begun on an old lease would be ended here
    assert sorted(first.log[2:] + second.log) in (["begun 1"], ["begun 2"])


async def test_the_failures_of_a_leaders_components_are_known_while_it_leads(pair: tuple[Replica, Replica]) -> None:
    first, _ = pair
    assert first.leadership.failures() == {}
    first.broken.set()
    await wait_ready(lambda: first.leadership.failures() == {"work": 1})
    await first.leadership.drain()
    assert first.leadership.failures() == {}


async def test_a_leader_that_finds_its_term_risen_begins_anew_in_the_new_term(
    pair: tuple[Replica, Replica], sql: Sql
) -> None:
    """It was frozen while another led and went: what it still has in its hands belongs to its old term."""
    first, _ = pair
    await sql.execute("update leadership set term = 6")
    await wait_ready(lambda: first.log == ["begun 1", "ended 1", "begun 6"])
    assert first.leading
