"""`drover serve` that dies by SIGKILL at a named point of its way; the service itself knows nothing of this.

    python -m tests.support.points after:insert_requests before:claim

Points are named after what they stand before or behind: a statement of `service/postgres/sql` (each is a commit of its
own), a move of a request (`apply/submitted-succeeded`), a call of the bus, the inbox or the hub
(`publish_events/generation.accepted`, `acknowledge`, `submit`), the commit of the migrations. Several points are a way:
the process dies at the last one, once it has passed the others in their order. With `hold:` before it, who comes to a
point waits there until somebody else has passed the next one.

Without arguments it is a stable: it reads orders from stdin, a line of JSON each (`{"variables", "way", "log"}`), forks
a replica for each, and answers with its pid and, when that has ended, with its exit status. Interpreter and imports,
1.5 s of a core, are so paid once and not for every death.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import aiohttp
from asyncpg.transaction import Transaction

from service import app as composition
from service.cli.serve import serve
from service.domain.errors import DroverError
from service.domain.messages import OutboxEvent
from service.hub.client import HubClient
from service.postgres.database import Database
from service.postgres.store import RequestStore
from service.rabbit.bus import RabbitBus
from service.rabbit.consumer import Consumer
from service.workers import doubts
from service.workers.janitor import Janitor
from service.workers.wakeups import Pulse

LONGEST_LIFE_S = 45  # whoever has not come to its point by then is ended by SIGALRM
LINGERS_S = 0.05  # before its death
SHOWN = 30  # of the points passed last


def quicken(put: Callable[[object, str, object], None] = setattr) -> None:
    """Shortens the waits that only save work: a test need not sit them out."""
    put(composition, "Pulse", partial(Pulse, interval_s=0.1))
    put(composition, "Janitor", partial(Janitor, interval_s=0.2))
    put(doubts, "LOOK_INTERVAL_S", 0.1)


class Way:
    """The points still to pass; at the last one the process dies, without a goodbye and without a flush."""

    def __init__(self, points: Sequence[str]) -> None:
        self._left = deque(points)
        self._passed: deque[str] = deque(maxlen=SHOWN)
        self._held: asyncio.Event | None = None

    def leads_to(self, point: str) -> bool:
        """Whether that is the next point."""
        return bool(self._left) and self._left[0] == point

    async def comes_to(self, point: str) -> None:
        """The process is about to do it. A death before lets everything go out that was begun too early."""
        if self.leads_to(point) and len(self._left) == 1:
            await asyncio.sleep(LINGERS_S)
        await self.waits_at(point)
        self.passed(point)

    async def waits_at(self, point: str) -> None:
        """Where the way says so, until the next point is passed."""
        if self.leads_to(f"hold:{point}"):
            self._left.popleft()
            self._held = asyncio.Event()
            await self._held.wait()

    def passed(self, point: str) -> None:
        """The process has come to that point. A death behind it is sudden: what was not written yet never will be."""
        self._passed.append(point)
        if not self.leads_to(point):
            return
        self._left.popleft()
        if self._held is not None:
            self._held.set()
        if not self._left:
            line = json.dumps({"event": "died", "point": point, "passed": list(self._passed)})
            os.write(1, line.encode() + b"\n")
            os.kill(os.getpid(), signal.SIGKILL)


# -- the places, by the names that the code gives them ----------------------------------------------------------------


def watch(way: Way) -> None:
    """Makes every write of this process pass its points."""
    _watch_statements(way)
    _watch_moves(way)
    _watch_acknowledgements(way)
    _watch_posts(way)
    _watch_events(way)
    _watch_call(way, RabbitBus, "publish_reply")
    _watch_call(way, RabbitBus, "publish_command")
    _watch_call(way, RabbitBus, "quarantine")
    _watch_call(way, HubClient, "cancel")
    _watch_call(way, Transaction, "__aexit__", name="migrations")  # and of claims within limits: no way names those


def _watch_call(
    way: Way, owner: type, method: str, *, name: str | None = None, detail: Callable[..., str] = lambda *_: ""
) -> None:
    call: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def watched(self: object, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the call answers
        point = (name or method) + detail(*args)
        await way.comes_to(f"before:{point}")
        answer = await call(self, *args, **named)
        way.passed(f"after:{point}")
        return answer

    setattr(owner, method, watched)


def _watch_events(way: Way) -> None:
    """One after another, so that each has its points."""
    publish = RabbitBus.publish_events

    async def watched(self: RabbitBus, events: Sequence[OutboxEvent]) -> list[DroverError | None]:
        outcomes: list[DroverError | None] = []
        for event in events:
            point = f"publish_events/{event.routing_key}"
            await way.comes_to(f"before:{point}")
            outcomes += await publish(self, [event])
            way.passed(f"after:{point}")
        return outcomes

    setattr(RabbitBus, "publish_events", watched)  # noqa: B010


def _watch_statements(way: Way) -> None:
    fetch = Database.fetch

    async def watched(self: Database, name: str, *args: Any) -> Any:  # noqa: ANN401 - rows
        await way.comes_to(f"before:{name}")
        rows = await fetch(self, name, *args)
        if name != "promote" or rows[0]["count"]:  # which is asked once a second, and hardly ever writes
            way.passed(f"after:{name}")
        return rows

    setattr(Database, "fetch", watched)  # noqa: B010 - mypy takes no assignment to a method
    fetch_after, lock = Database.fetch_after, Database._lock

    async def watched_after(self: Database, first: str, first_args: Any, name: str, *args: Any) -> Any:  # noqa: ANN401
        await way.comes_to(f"before:{name}")
        rows = await fetch_after(self, first, first_args, name, *args)
        way.passed(f"after:{name}")
        return rows

    async def watched_lock(self: Database, connection: Any, name: str, *args: Any) -> None:  # noqa: ANN401
        await way.comes_to(f"before:{name}")
        await lock(self, connection, name, *args)
        way.passed(f"after:{name}")

    setattr(Database, "fetch_after", watched_after)  # noqa: B010
    setattr(Database, "_lock", watched_lock)  # noqa: B010


def _watch_moves(way: Way) -> None:
    """`apply` writes every change of a request: its points are told apart by the move."""
    apply = RequestStore.apply

    async def watched(self: RequestStore, decisions: Sequence[Any], now: Any) -> set[str]:  # noqa: ANN401
        moves = [
            (decision.after.request_id, f"apply/{decision.before.state.value}-{decision.after.state.value}")
            for decision, _ in decisions
        ]
        for _, move in moves:
            await way.comes_to(f"before:{move}")
        written = await apply(self, decisions, now)
        for request_id, move in moves:
            if request_id in written:
                way.passed(f"after:{move}")
        return written

    setattr(RequestStore, "apply", watched)  # noqa: B010


def _watch_acknowledgements(way: Way) -> None:
    acknowledge, send = Consumer.acknowledge, Consumer._acknowledge

    def watched(self: Consumer, deliveries: Sequence[object]) -> None:
        way.passed("before:acknowledge")
        acknowledge(self, deliveries)

    async def sent(self: Consumer, session: Any, tag: int, *, multiple: bool) -> None:  # noqa: ANN401
        await send(self, session, tag, multiple=multiple)
        if way.leads_to("after:acknowledge"):
            # An acknowledgement has no answer. What follows it on the channel has: then the broker has taken both.
            await session.channel.basic_qos(prefetch_count=1, timeout=10)
            way.passed("after:acknowledge")

    setattr(Consumer, "acknowledge", watched)  # noqa: B010
    setattr(Consumer, "_acknowledge", sent)  # noqa: B010


def _watch_posts(way: Way) -> None:
    submit = HubClient.submit

    async def watched(self: HubClient, request: Any, parameters: Any) -> Any:  # noqa: ANN401
        await way.comes_to("before:submit")
        if way.leads_to("during:submit"):  # the sandbox has been told to keep its answer back
            before = await _posted(self)
            posting = asyncio.ensure_future(submit(self, request, parameters))
            while await _posted(self) == before:
                await asyncio.sleep(0.01)  # the hub has no signal for a POST
            way.passed("during:submit")
            return await posting
        outcome = await submit(self, request, parameters)
        await way.waits_at("after:submit")
        way.passed("after:submit")
        return outcome

    setattr(HubClient, "submit", watched)  # noqa: B010


async def _posted(hub: HubClient) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{hub._base_url}/sandbox/count") as response:
        return int((await response.json())["posted"])


# -- the process ------------------------------------------------------------------------------------------------------


def live(points: Sequence[str]) -> int:
    """Runs the service until it dies; its exit code if it outlives its way."""
    signal.alarm(LONGEST_LIFE_S)
    quicken()
    watch(Way(points))
    return serve()


def stable() -> None:
    """Forks a replica for each order, one at a time."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(order)
        _answer(pid=child)
        _, status = os.waitpid(child, 0)
        _answer(status=os.waitstatus_to_exitcode(status))


def _answer(**fields: int) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _run(order: dict[str, Any]) -> NoReturn:
    """The forked replica: an environment and a log of its own."""
    code = 70
    try:
        os.close(0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["variables"])
        code = live(order["way"])
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(live(sys.argv[1:]))
    stable()
