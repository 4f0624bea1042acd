"""Commands of the operator that end at once: migrate, topology, config."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os

from rich.console import Console
from rich.table import Column, Table

from service.otlp.environment import collector
from service.postgres.database import Database
from service.postgres.migrate import apply_migrations
from service.rabbit.connection import Link, translated
from service.rabbit.topology import EXCHANGES, QUEUES, declare
from service.settings import FILES, Settings, load_settings, unknown_variables, variables

WIDE = 200  # columns, where there is no terminal to fit


def migrate(*, json: bool = False) -> int:
    """Bring the database up to this version's schema. Safe to run at any time, and by several at once.

    For example:

        drover migrate
        DROVER_DATABASE_URL=postgresql://owner:...@postgres/drover drover migrate    # as the tables' owner

    `drover serve` does it at its start, unless DROVER_MIGRATE_ON_START is false; `drover doctor` says what is missing.

    Parameters
    ----------
    json
        Print what was applied as JSON.
    """
    settings = load_settings(hub=False)

    async def apply() -> list[str]:
        database = Database(settings.database_url.get_secret_value(), size=1)
        await database.open()
        try:
            return [f"{item.version:04d}_{item.name}" for item in await apply_migrations(database)]
        finally:
            await database.close()

    applied = asyncio.run(apply())
    if json:
        Console().print_json(jsonlib.dumps({"applied": applied}))
    else:
        Console().print(f"applied: {', '.join(applied)}" if applied else "The database is up to date.", highlight=False)
    return 0


def topology(*, json: bool = False) -> int:
    """Declare the exchanges, queues and bindings on the broker. Safe to repeat.

    For example:

        drover topology
        drover topology --json | jq .queues

    `drover serve` does it at its start. What is there with other arguments is told, and left as it is.

    Parameters
    ----------
    json
        Print what was declared as JSON.
    """
    settings = load_settings(hub=False)

    async def apply() -> None:
        link = await Link.open(settings.amqp_url.get_secret_value(), "topology")
        try:
            channel = await link.channel(confirms=False)
            with translated("declaring the topology"):
                await declare(channel)
        finally:
            await link.close()

    asyncio.run(apply())
    declared = {"exchanges": [item.name for item in EXCHANGES], "queues": [item.name for item in QUEUES]}
    if json:
        Console().print_json(jsonlib.dumps(declared))
    else:
        for kind, names in declared.items():
            Console().print(f"{kind}: {', '.join(names)}", highlight=False)
    return 0


def config(*, json: bool = False) -> int:
    """List every setting with its variable, its meaning and its default; and name what is missing or misspelt.

    For example:

        drover config
        drover config --json | jq -r '.[].variable'

    Exit code 2 when a setting is missing or wrong. `drover doctor` also tries them.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    fields = {str(field.validation_alias): field for field in Settings.model_fields.values()}
    rows = [
        {"variable": name, "meaning": meaning, "default": _default(fields[name].is_required(), fields[name].default)}
        for name, meaning in variables().items()
    ]
    rows += [
        {"variable": name, "meaning": f"A file to read {held} from where that is not set.", "default": "none"}
        for name, held in FILES.items()
    ]
    if json:
        Console().print_json(jsonlib.dumps(rows))
    else:
        table = Table(Column("variable", no_wrap=True), Column("default", overflow="fold"), "meaning")
        for row in rows:
            table.add_row(row["variable"], row["default"], row["meaning"])
        Console(width=None if Console().is_terminal else WIDE).print(table)
    for name, meant in unknown_variables().items():
        hint = f"; did you mean {meant}?" if meant else "."
        Console(stderr=True).print(f"drover: nothing reads {name}{hint}", highlight=False, soft_wrap=True)
    load_settings()
    address = collector(os.environ)
    if not json:
        traces = f"go to {address}" if address else "are off: OTEL_EXPORTER_OTLP_ENDPOINT would name their collector"
        Console().print(f"Traces {traces}.", highlight=False, soft_wrap=True)
    return 0


def _default(required: bool, default: object) -> str:  # noqa: FBT001 - two columns of one row
    if required:
        return "required"
    if default is None or default == frozenset():
        return "none"
    value = default.get_secret_value() if hasattr(default, "get_secret_value") else default
    return str(value).lower() if isinstance(value, bool) else str(value)
