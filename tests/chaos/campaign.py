"""One campaign: traffic over a schedule of faults, then the settling, then the evidence."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.local.stack import Stack
from service.sandbox import Faults
from tests.chaos import gathering
from tests.chaos.clients import INBOX, Producer, Recorder
from tests.chaos.conductor import Conductor
from tests.chaos.evidence import TERMINAL, Evidence
from tests.chaos.hub import HubProcess
from tests.chaos.schedule import Fault, Options, schedule
from tests.chaos.stage import SETTLED_S, Stage, staged
from tests.chaos.traffic import Asked, shifted, traffic
from tests.chaos.troupe import Troupe

CALM_S = 2.0  # nothing new for so long, after the last end
OVER_S = 1.0  # and once more, after the last replica has drained
PATIENCE_S = 120.0  # for the last end, counted from the last fault


AtRest = Callable[[Stage, Troupe], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What to play. `share` is the probability of each of the hub's faults; every one of the `waves` begins when all
    that the former one has asked for has ended, and has a schedule of its own."""

    seed: int
    requests: int = 10_000
    replicas: int = 3
    share: float = 0.02
    delay_s: float = 1.5
    waves: int = 1
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


async def play(stack: Stack, campaign: Campaign, logs: Path | None = None, at_rest: AtRest | None = None) -> Played:
    """Plays it on servers that are up; the replicas' logs are written into `logs`. `at_rest` is awaited
    behind every wave, when all that was asked for has ended."""
    hub = HubProcess(seed=campaign.seed, delay_s=campaign.delay_s, faults=hub_faults(campaign.share))
    async with hub, staged(stack, hub) as stage:
        troupe = Troupe(stage.variables, campaign.replicas)
        try:
            await troupe.start()
            return await _play(stage, troupe, campaign, at_rest)
        finally:
            await troupe.close()
            if logs is not None:
                logs.mkdir(parents=True, exist_ok=True)
                for replica in troupe.all:
                    replica.save(logs)


async def _play(stage: Stage, troupe: Troupe, campaign: Campaign, at_rest: AtRest | None) -> Played:
    asked = traffic(campaign.seed, campaign.requests, campaign.options.seconds)
    conductor = Conductor(stage, troupe)
    load_before = os.getloadavg()[0]
    sent: list[Asked] = []
    async with Recorder(stage.amqp_url) as recorder, Producer(stage.amqp_url) as producer:
        await asyncio.sleep(SETTLED_S)  # for the queues that have just been declared
        traffic_s = ended_s = 0.0
        for number, wave in enumerate(_waves(asked, campaign)):
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:  # a fault that could not be done ends the whole
                group.create_task(conductor.play(faults_of(campaign, number)))
                await producer.play(wave)
                traffic_s += time.monotonic() - began
            sent += wave
            await _until_calm(stage, recorder, sent)
            ended_s += recorder.last_at - began
            if at_rest is not None:
                await at_rest(stage, troupe)
        await troupe.drain()
        await _until_silent(stage, recorder, OVER_S)
        evidence = await gathering.evidence(stage, troupe, recorder, producer, conductor, asked)
    return Played(
        evidence=evidence,
        traffic_s=traffic_s,
        ended_s=ended_s,
        unknown_publishes=producer.unknown,
        load=(load_before, os.getloadavg()[0]),
    )


def _waves(asked: Sequence[Asked], campaign: Campaign) -> list[list[Asked]]:
    """The traffic of each wave, its moments counted from the beginning of the wave."""
    length = campaign.options.seconds / campaign.waves
    waves: list[list[Asked]] = [[] for _ in range(campaign.waves)]
    for request in asked:
        number = min(int(request.at_s[0] / length), campaign.waves - 1)
        waves[number].append(shifted(request, number * length))
    return waves


def faults_of(campaign: Campaign, wave: int) -> list[Fault]:
    """The schedule of one wave."""
    options = replace(campaign.options, seconds=campaign.options.seconds / campaign.waves)
    return schedule(campaign.seed + 1000 * wave, options)


async def _until_calm(stage: Stage, recorder: Recorder, asked: Sequence[Asked]) -> None:
    """Until every request has its end and nothing is left to do, or until patience ends; the checker will tell."""
    give_up = time.monotonic() + PATIENCE_S
    ids = {request.request_id for request in asked}
    while time.monotonic() < give_up:
        ended = {event.request_id for event in recorder.heard if event.name in TERMINAL}
        if ids <= ended and await gathering.unfinished(stage.database_url) == 0:
            break
        await asyncio.sleep(0.5)  # the consumer's events tell half of it, the database the rest
    await _until_silent(stage, recorder, CALM_S)


async def _until_silent(stage: Stage, recorder: Recorder, calm_s: float) -> None:
    """Until the inbox is empty and nothing has come for a while."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        silent_s = time.monotonic() - recorder.last_at
        if silent_s >= calm_s and not await gathering.ready_messages(stage.servers, stage.amqp_url, INBOX):
            return
        await asyncio.sleep(0.5)
