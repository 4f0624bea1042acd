"""The command itself: asks the database, and of what is not there, the bus."""

from __future__ import annotations

import asyncio

from service.cli.ids import valid_id
from service.cli.status.absent import Bus, explain_absent, look_for
from service.cli.status.explain import Surroundings, explain
from service.cli.status.show import Report, document_of, overview_document, print_json, print_overview, print_report
from service.clock import utc_now
from service.postgres.database import Database
from service.postgres.migrate import check_migrations
from service.postgres.overview import Overview, read_overview
from service.postgres.reader import RequestReader
from service.settings import Settings, load_settings


def status(*request_ids: str, json: bool = False) -> int:
    """Say in plain words where requests are; without an id, how all of them are together.

    For example:

        drover status 0198-...           # who holds it, what it waits for, its outputs and events
        drover status                    # how many wait, the oldest of them, who leads, what is to be published
        drover status --json | jq .counts

    Of an id that is not stored it says whether a message with it was rejected, is in quarantine, or waits, and else
    what to check. Exit code 0 when all are found, 1 when one is not.

    Parameters
    ----------
    request_ids
        The ids that the requests were sent with.
    json
        Print one JSON document.
    """
    settings = load_settings(hub=False)
    wanted = tuple(dict.fromkeys(map(valid_id, request_ids)))
    overview, reports = asyncio.run(_read(settings, wanted))
    now = utc_now()
    if not wanted:
        if json:
            print_json(overview_document(overview))
        else:
            print_overview(overview, now)
        return 0
    if json:
        print_json({"requests": [document_of(report) for report in reports]})
    else:
        for report in reports:
            print_report(report, now)
    return 0 if all(report.stored is not None for report in reports) else 1


async def _read(settings: Settings, request_ids: tuple[str, ...]) -> tuple[Overview, list[Report]]:
    database = Database(settings.database_url.get_secret_value(), size=2)
    await database.open()
    try:
        await check_migrations(database)
        overview = await read_overview(database)
        return overview, await _reports(settings, RequestReader(database), overview, request_ids)
    finally:
        await database.close()


async def _reports(
    settings: Settings, reader: RequestReader, overview: Overview, request_ids: tuple[str, ...]
) -> list[Report]:
    found = {request_id: await reader.find(request_id) for request_id in request_ids}
    absent = {request_id for request_id, stored in found.items() if stored is None}
    bus = await look_for(settings.amqp_url.get_secret_value(), absent) if absent else Bus()
    around = Surroundings(overview.leader, overview.hold_s, settings.doubt_grace_s)
    reports = []
    for request_id, stored in found.items():
        events, now = await reader.events(request_id), utc_now()
        if stored is not None:
            told = explain(stored, events, around, now)
        else:
            early = await reader.early_cancel(request_id)
            days = settings.retention_days
            told = explain_absent(request_id, events, bus, now, early_cancel=early, retention_days=days)
        reports.append(Report(request_id, told, stored, events))
    return reports
