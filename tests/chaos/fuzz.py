"""Odd messages, many of them, to one replica; and afterwards each is accounted for.

    python -m tests.chaos.fuzz [--messages 100000] [--seed 1]

Prints what became of them. Exit code 1 when one was lost or the service broke, fell over or grew; the seed repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from service.rabbit.connection import Link
from service.rabbit.properties import Verbatim
from service.rabbit.topology import CANCEL_KEY, CANCELS, COMMANDS, DEAD, EVENTS, REQUEST_KEY, REQUESTS
from service.sandbox import Sandbox, SandboxOptions
from tests.chaos.answers import Answers, Sent, named
from tests.chaos.oddities import Oddity, oddity
from tests.support.replica import KEY, Process, environment, get
from tests.support.servers import Servers

AT_ONCE = 50  # publishes that wait for their confirms
AHEAD = 3000  # messages in the queue, beyond which publishing pauses
SILENCE_S = 30.0  # after which nothing more is expected
SHOWN = 5  # examples of each fault
LEVEL = 1.15  # what memory may grow by, from the second quarter to the last
STARTING = ("consumer.started", "bus.connected", "http.listening")


class Witness(Process):
    """A replica whose log is counted; kept is how it started, and what went wrong."""

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(variables)
        self.told: Counter[str] = Counter()

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            found = json.loads(line)
            self.told[found["event"]] += 1
            if found["event"] in STARTING or found["level"] in ("error", "critical"):
                async with self._logged:
                    self.lines.append(found)
                    self._logged.notify_all()

    def memory_mb(self) -> float:
        """What it holds of the machine's memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


@dataclass(slots=True)
class Report:
    """What became of the messages, and what is wrong with it."""

    seconds: float = 0.0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, outcome)
    memory_mb: list[float] = field(default_factory=list)  # the median of each quarter of the time
    redelivered: int = 0
    told: Counter[str] = field(default_factory=Counter)  # lines of the log by event
    faults: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        total = sum(self.outcomes.values())
        yield f"{total} messages in {self.seconds:.1f} s ({total / max(self.seconds, 0.1):.0f}/s)"
        for outcome in sorted({outcome for _, outcome in self.outcomes}):
            kinds = {kind: n for (kind, found), n in sorted(self.outcomes.items()) if found == outcome}
            yield f"  {outcome}: {sum(kinds.values())} ({', '.join(f'{kind} {n}' for kind, n in kinds.items())})"
        yield f"memory of the service, median of each quarter: {', '.join(f'{mb:.0f}' for mb in self.memory_mb)} MB"
        yield f"redelivered: {self.redelivered}"
        yield f"log: {dict(self.told.most_common(12))}"
        yield from (f"FAULT: {fault}" for fault in self.faults)


async def fuzz(servers: Servers, amqp_url: str, database_url: str, *, messages: int, seed: int) -> Report:
    """Sends, waits, and counts."""
    report, answers = Report(), Answers()
    async with Sandbox(SandboxOptions(api_key=KEY, delay_s=0.2, render=False)) as hub:
        async with Witness(environment(amqp_url, database_url, hub.url)) as drover:
            port = await drover.ready()
            ears = await Link.open(amqp_url, "ears")
            await _listen(ears, answers)
            began = time.monotonic()
            sampling = asyncio.create_task(_sample(drover, port, report))
            waiting = await _send(amqp_url, messages, seed)
            left = await _account(waiting, answers, report, database_url)
            report.seconds = time.monotonic() - began
            sampling.cancel()
            for queue in (REQUESTS, CANCELS):
                await _check_queue(servers, amqp_url, queue, report)
            await _check_process(drover, port, report)
            await ears.close()
        report.told = drover.told
        judge(left, answers, {it["generation_id"] for it in hub.ledger()["generations"]}, report)
    return report


async def _listen(link: Link, answers: Answers) -> None:
    channel = await link.channel(confirms=False)  # of frames: no library's message has room for every property
    inbox = (await channel.queue_declare(exclusive=True)).queue
    assert inbox is not None
    await channel.queue_bind(inbox, EVENTS, routing_key="#")
    await channel.basic_consume(inbox, answers.on_event, no_ack=True)
    await channel.basic_consume(DEAD, answers.on_dead, no_ack=True)


async def _send(amqp_url: str, messages: int, seed: int) -> list[Sent]:
    """Publishes with confirms, and not much faster than is taken in; answers what was sent."""
    link = await Link.open(amqp_url, "fuzz")
    channel, numbers, sent, go = await link.channel(confirms=True), iter(range(messages)), list[Sent](), asyncio.Event()

    async def publish() -> None:
        for number in numbers:
            await go.wait()
            message = oddity(seed, number)
            sent.append((message, named(message.body)))
            await channel.basic_publish(
                message.body,
                exchange=COMMANDS,
                routing_key=CANCEL_KEY if message.kind == "cancel" else REQUEST_KEY,
                properties=Verbatim(message.properties),
                mandatory=True,
                wait=False,
            )

    publishing = asyncio.gather(*(publish() for _ in range(AT_ONCE)))
    await _pace(link, go, publishing)
    await publishing
    await link.close()
    return sent


async def _pace(link: Link, go: asyncio.Event, publishing: asyncio.Future[list[None]]) -> None:
    channel = await link.channel(confirms=False)
    while not publishing.done():
        waiting = (await channel.queue_declare(REQUESTS, passive=True)).message_count or 0
        if waiting < AHEAD:
            go.set()
        else:
            go.clear()
        await asyncio.wait((publishing,), timeout=0.1)


async def _account(waiting: list[Sent], answers: Answers, report: Report, database_url: str) -> list[Oddity]:
    """Waits until each message is answered, or until nothing more comes; what is left."""
    database = await asyncpg.connect(database_url)
    heard, since = answers.count, time.monotonic()
    while waiting and time.monotonic() - since < SILENCE_S:
        answers.kept = {row["request_id"] for row in await database.fetch("select request_id from early_cancels")}
        left = []
        for start in range(0, len(waiting), 1000):
            for item in waiting[start : start + 1000]:
                if (outcome := answers.of(*item)) is None:
                    left.append(item)
                else:
                    report.outcomes[item[0].kind, outcome] += 1
            await asyncio.sleep(0)  # the answers come to this very process
        waiting = left
        if answers.count != heard:
            heard, since = answers.count, time.monotonic()
        await asyncio.sleep(0.5)
    await database.close()
    return [message for message, _ in waiting]


async def _sample(drover: Witness, port: int, report: Report) -> None:
    """Looks at memory and health while it works; at the end sums the memory up."""
    samples: list[float] = []
    try:
        while True:
            samples.append(drover.memory_mb())
            status, _ = await get(f"http://127.0.0.1:{port}/healthz")
            if status != 200:
                report.faults.append(f"/healthz answered {status}")
            await asyncio.sleep(0.25)
    except (OSError, IndexError) as error:
        report.faults.append(f"the service could not be looked at: {error!r}")
    finally:
        size = max(1, len(samples) // 4)
        quarters = [samples[at * size : (at + 1) * size] for at in range(4)]
        report.memory_mb = [statistics.median(quarter) for quarter in quarters if quarter]


async def _check_queue(servers: Servers, amqp_url: str, queue: str, report: Report) -> None:
    """Waits until the broker says that nothing is left, ready or unacknowledged; adds the redeliveries."""
    path = f"/api/queues/{urlsplit(amqp_url).path[1:]}/{queue}"
    found: dict[str, Any] = {}
    try:
        async with asyncio.timeout(20):
            while found.get("messages") != 0:
                await asyncio.sleep(0.5)  # its statistics lag by seconds
                found = json.loads(await servers.manage("GET", path))
    except TimeoutError:
        report.faults.append(f"{found.get('messages')} messages stay in {queue}")
    report.redelivered += int(found.get("message_stats", {}).get("redeliver", 0))


async def _check_process(drover: Witness, port: int, report: Report) -> None:
    """Alive, well, and ended in order when asked to."""
    for path in ("/healthz", "/readyz"):
        status, body = await get(f"http://127.0.0.1:{port}{path}")
        if status != 200:
            report.faults.append(f"{path} answered {status}: {body.decode()}")
    drover.terminate()
    if (code := await drover.ended()) != 0:
        report.faults.append(f"the service ended with {code}")
    broken = [line for line in drover.lines if line["level"] in ("error", "critical")]
    report.faults += [f"logged: {json.dumps(line)[:600]}" for line in broken[:SHOWN]]
    report.faults += [f"on stderr: {line[:600]}" for line in drover.errors[:SHOWN]]


def judge(left: list[Oddity], answers: Answers, bought: set[str], report: Report) -> None:
    """Puts what is wrong into the report; `bought` are the ids in the hub's ledger."""
    report.faults += [f"lost: {it.kind} {it.number}: {it.properties!r} {it.body[:300]!r}" for it in left[:SHOWN]]
    if len(left) > SHOWN:
        report.faults.append(f"lost: {len(left)} in all")
    if internal := [key for key, reason in answers.dead.items() if reason == "internal"]:
        report.faults.append(f"broke the service and went to quarantine: {internal[: 2 * SHOWN]}")
    if changed := sum(n for (_, outcome), n in report.outcomes.items() if outcome == "dead and changed"):
        report.faults.append(f"changed on the way to quarantine: {changed}")
    several = [request_id for request_id, ids in answers.ends.items() if len(ids) > 1]
    report.faults += [f"ended more than once: {request_id}" for request_id in several[:SHOWN]]
    if unended := set(answers.accepted.values()) - set(answers.ends):
        report.faults.append(f"accepted and never ended: {sorted(unended)[:SHOWN]}")
    if unowned := bought - answers.generations:
        report.faults.append(f"bought and never told: {sorted(unowned)[:SHOWN]} ({len(unowned)} in all)")
    if report.redelivered or report.told["consumer.lost"]:
        report.faults.append(f"{report.redelivered} redelivered, {report.told['consumer.lost']} connections lost")


async def main(messages: int, seed: int) -> int:
    """One run on servers of its own; its exit code."""
    servers = Servers.up()
    template = "drover_fuzz"
    await servers.make_template(template)
    database_url, amqp_url = await servers.make_database(template), await servers.make_vhost()
    try:
        report = await fuzz(servers, amqp_url, database_url, messages=messages, seed=seed)
    finally:
        await servers.drop_database(database_url)
        await servers.drop_vhost(amqp_url)
        await servers.drop_template(template)
    if report.memory_mb[-1] > LEVEL * report.memory_mb[1]:
        report.faults.append(f"memory grew: {report.memory_mb}")
    sys.stdout.write("\n".join([f"seed {seed}: ", *report.lines()]) + "\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    sys.exit(asyncio.run(main(chosen.messages, chosen.seed)))
