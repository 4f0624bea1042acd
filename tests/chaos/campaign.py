"""One campaign: traffic over a schedule of faults, then the settling, then the evidence."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.local.stack import Stack
from service.sandbox import Faults
from tests.chaos import gathering
from tests.chaos.clients import INBOX, Producer, Recorder
from tests.chaos.conductor import Conductor
from tests.chaos.evidence import TERMINAL, Evidence
from tests.chaos.hub import HubProcess, bought, streams
from tests.chaos.schedule import Options, schedule
from tests.chaos.stage import SETTLED_S, Stage, staged
from tests.chaos.traffic import Asked, traffic
from tests.chaos.troupe import Troupe

CALM_S = 3.0  # nothing new for so long, after the last end
PATIENCE_S = 120.0  # for the last end, counted from the last fault


Watch = Callable[[Stage, Troupe], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to play. `share` is the probability of each of the hub's faults."""

    seed: int
    requests: int = 10_000
    replicas: int = 3
    share: float = 0.02
    delay_s: float = 1.5
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of it: the evidence, and the seconds that it took."""

    evidence: Evidence
    traffic_s: float  # from the first request to the last confirm
    ended_s: float  # from the first request to the last end
    unknown_publishes: int
    load: tuple[float, float]  # of the machine over the last minute, before and after


def hub_faults(share: float) -> Faults:
    """What the hub does to POSTs and events; half of its 502 come after it has accepted. Some more in small doses."""
    return Faults(
        answers_lost=share,
        posts_limited=share,
        posts_failed=share / 2,
        posts_failed_late=share / 2,
        events_dropped=share,
        answers_hung=share / 8,
        events_doubled=share / 2,
        events_foreign=share / 2,
        events_early=share / 2,
    )


async def play(stack: Stack, campaign: Campaign, logs: Path | None = None, beside: Watch | None = None) -> Played:
    """Plays it on servers that are up; the replicas' logs are written into `logs`. `beside` runs while requests
    are sent."""
    hub = HubProcess(seed=campaign.seed, delay_s=campaign.delay_s, faults=hub_faults(campaign.share))
    async with hub, staged(stack, hub) as stage:
        troupe = Troupe(stage.variables, campaign.replicas)
        try:
            await troupe.start()
            return await _play(stage, troupe, campaign, beside)
        finally:
            await troupe.close()
            if logs is not None:
                logs.mkdir(parents=True, exist_ok=True)
                for replica in troupe.all:
                    replica.save(logs)


async def _play(stage: Stage, troupe: Troupe, campaign: Campaign, beside: Watch | None) -> Played:
    asked = traffic(campaign.seed, campaign.requests, campaign.options.seconds)
    conductor = Conductor(stage, troupe)
    load_before = os.getloadavg()[0]
    async with Recorder(stage.amqp_url) as recorder, Producer(stage.amqp_url) as producer:
        await asyncio.sleep(SETTLED_S)  # for the queues that have just been declared
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:  # a fault that could not be done ends the whole
            group.create_task(conductor.play(schedule(campaign.seed, campaign.options)))
            watching = group.create_task(beside(stage, troupe)) if beside is not None else None
            await producer.play(asked)
            traffic_s = time.monotonic() - began
            if watching is not None:
                watching.cancel()
        await _until_calm(stage, recorder, asked)
        ended_s = recorder.last_at - began
        await troupe.drain()
        await _until_silent(stage, recorder)
        stored = await gathering.stored(stage.database_url)
        quarantined = await gathering.ready_messages(stage.servers, stage.amqp_url, "generation.dead")
    ledger = await stage.hub.ledger()
    evidence = Evidence(
        asked=asked,
        confirmed=frozenset(producer.confirmed),
        heard=tuple(recorder.heard),
        bought=bought(ledger),
        requests=stored.requests,
        outputs=stored.outputs,
        events=stored.events,
        streams=streams(ledger),
        strikes=ledger["strikes"],
        incidents=tuple(sorted(conductor.incidents, key=lambda incident: incident.began_at)),
        exit_codes=dict(troupe.exit_codes),
        quarantined=quarantined,
        ended_at=time.time(),
    )
    await troupe.close()
    log = sorted((line for replica in troupe.all for line in replica.log()), key=lambda line: line.at)
    errors = [f"{replica.name}: {line.rstrip()}" for replica in troupe.all for line in replica.process.errors]
    return Played(
        evidence=replace(evidence, log=tuple(log), stderr=tuple(errors)),
        traffic_s=traffic_s,
        ended_s=ended_s,
        unknown_publishes=producer.unknown,
        load=(load_before, os.getloadavg()[0]),
    )


async def _until_calm(stage: Stage, recorder: Recorder, asked: list[Asked]) -> None:
    """Until every request has its end and nothing is left to do, or until patience ends; the checker will tell."""
    give_up = time.monotonic() + PATIENCE_S
    ids = {request.request_id for request in asked}
    while time.monotonic() < give_up:
        ended = {event.request_id for event in recorder.heard if event.name in TERMINAL}
        if ids <= ended and await gathering.unfinished(stage.database_url) == 0:
            break
        await asyncio.sleep(0.5)  # the consumer's events tell half of it, the database the rest
    await _until_silent(stage, recorder)


async def _until_silent(stage: Stage, recorder: Recorder) -> None:
    """Until the inbox is empty and nothing has come for a while."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        silent_s = time.monotonic() - recorder.last_at
        if silent_s >= CALM_S and not await gathering.ready_messages(stage.servers, stage.amqp_url, INBOX):
            return
        await asyncio.sleep(0.5)
