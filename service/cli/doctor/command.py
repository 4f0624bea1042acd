"""The command itself: looks at everything at once, within a bounded time, and prints."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import msgspec
import orjson
from rich.console import Console
from rich.text import Text

from service.cli.doctor.broker import Account, judge_broker
from service.cli.doctor.check import Check, Level, fault, faulty, not_checked
from service.cli.doctor.clocks import Reading, judge_clocks
from service.cli.doctor.configuration import judge_settings
from service.cli.doctor.database import judge_database
from service.cli.doctor.hub import judge_hub
from service.domain.errors import DroverError
from service.domain.messages import DEFAULT_MODEL
from service.hub.probe import HubState, probe_hub
from service.postgres.probe import DatabaseState, probe_database
from service.rabbit.probe import BrokerState, probe_broker
from service.settings import Settings

LIMIT_S = 20.0  # for each of the three; they are looked at side by side
STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "bold red", Level.NOT_CHECKED: "dim"}
State = TypeVar("State")


def doctor(*, json: bool = False) -> int:
    """Check every setting and connection, and say how to mend what is wrong. Changes nothing, costs nothing.

    Looks at the settings, RabbitMQ (login, vhost, topology as found against as wanted, permissions, consumers),
    Postgres (login, writes, migrations, privileges, who leads), the hub (address, key, namespaces, default model),
    and whether all clocks agree.

        drover doctor
        drover doctor --json | jq '.checks[] | select(.level == "fault")'

    Exit code 0 when nothing is at fault (there may be warnings), 1 when something is, 2 when a setting is wrong.

    Parameters
    ----------
    json
        Print the checks as one JSON document.
    """
    checks, settings, with_key = judge_settings(os.environ)
    if settings is not None:
        checks += asyncio.run(_look(settings, with_key=with_key))
    if json:
        document = {"ok": not faulty(checks), "checks": [msgspec.to_builtins(check) for check in checks]}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        _print(checks)
    if not with_key:
        return 2
    return 1 if faulty(checks) else 0


async def _look(settings: Settings, *, with_key: bool) -> list[Check]:
    amqp_url, dsn = settings.amqp_url.get_secret_value(), settings.database_url.get_secret_value()
    broker, database, hub = await asyncio.gather(
        _within("broker.connection", probe_broker(amqp_url)),
        _within("database.connection", probe_database(dsn)),
        _within("hub.connection", _hub(settings, with_key=with_key)),
    )
    checks: list[Check] = []
    checks += judge_broker(broker, Account.of(amqp_url)) if isinstance(broker, BrokerState) else [broker]
    if isinstance(database, DatabaseState):
        checks += judge_database(database, dsn, migrates_on_start=settings.migrate_on_start)
    else:
        checks.append(database)
    base_url = settings.base_url.get_secret_value()
    checks += judge_hub(hub, base_url, DEFAULT_MODEL) if isinstance(hub, HubState) else [hub]
    return checks + judge_clocks(_database_clock(database), _hub_clock(hub))


async def _hub(settings: Settings, *, with_key: bool) -> HubState | Check:
    if not with_key:
        return not_checked("hub.connection", "Without its settings the hub cannot be asked.")
    base_url, key = settings.base_url.get_secret_value(), settings.api_key.get_secret_value()
    return await probe_hub(base_url, key, settings.target_namespaces, DEFAULT_MODEL)


async def _within(name: str, probing: Awaitable[State]) -> State | Check:
    """What was found out, or a fault that says what kept us from it."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await probing
    except TimeoutError:
        return fault(name, f"The check did not end within {LIMIT_S:g} s.", "It answers too slowly; look at its load.")
    except DroverError as error:
        return fault(
            name, str(error), "The connection was lost during the check: look into the server's log; try again."
        )


def _database_clock(found: DatabaseState | Check) -> Reading | None:
    if not isinstance(found, DatabaseState) or found.server is None:
        return None
    return Reading(found.server.ahead_s, found.server.off_by_s)


def _hub_clock(found: HubState | Check) -> Reading | None:
    answers = [answer for _, answer in found.lists] if isinstance(found, HubState) else []
    for answer in answers:
        if answer.ahead_s is not None:
            return Reading(answer.ahead_s, answer.off_by_s + 0.5)  # Date has no fractions
    return None


def _print(checks: Sequence[Check]) -> None:
    console = Console(soft_wrap=True)
    width = max(len(check.name) for check in checks)
    for check in checks:
        console.print(
            Text.assemble((f"{check.level.value:<11}", STYLES[check.level]), f"  {check.name:<{width}}  {check.found}")
        )
        if check.remedy:
            console.print(Text(f"{'':<11}  {'':<{width}}  mend: {check.remedy}"))
    counts = [(level, sum(check.level is level for check in checks)) for level in Level]
    console.print(", ".join(f"{count} {level.value}" for level, count in counts if count), highlight=False)
