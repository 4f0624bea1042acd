"""`drover watch`: the newest requests as they change, in a live table, or line by line where there is no terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import orjson
from cyclopts import Parameter
from msgspec import Struct
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from service.cli.moments import clock, span
from service.cli.printable import printable
from service.clock import utc_now
from service.domain.errors import ConfigurationError, DatabaseUnavailableError
from service.domain.states import RequestState
from service.domain.stored import StoredRequest
from service.postgres.database import Database
from service.postgres.migrate import check_migrations
from service.postgres.overview import Overview, read_overview
from service.postgres.reader import RequestReader
from service.settings import load_settings

PAGE = (
    200  # requests that are looked at each time; those that have not ended are followed when newer ones push them out
)
COLUMNS = ("request_id", "state", "source", "model", "age", "tries", "outputs", "is about")
STYLES = {
    RequestState.SUCCEEDED: "green",
    RequestState.FAILED: "red",
    RequestState.EXPIRED: "red",
    RequestState.IN_DOUBT: "bold yellow",
    RequestState.CANCELLING: "yellow",
    RequestState.CANCELLED: "dim",
}


class Look(Struct, frozen=True):
    """What was seen at one moment: the chosen requests, newest first."""

    at: datetime
    requests: Sequence[StoredRequest]
    overview: Overview


class Wanted(Struct, frozen=True):
    """Which requests are shown."""

    states: frozenset[RequestState] = frozenset()
    sources: frozenset[str] = frozenset()

    def takes(self, stored: StoredRequest) -> bool:
        """Whether this one is."""
        request = stored.request
        fits = not self.states or request.state in self.states
        return fits and (not self.sources or request.source in self.sources)


def watch(
    *,
    status: Annotated[tuple[RequestState, ...], Parameter(negative=(), show_default=False)] = (),
    source: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    interval: float = 1.0,
    json: bool = False,
) -> int:
    """Show requests as they change, the newest first, until Ctrl-C (exit code 130).

    On a terminal a table that renews itself; elsewhere, and with --json, a line for each request and for each change
    of its state.

        drover watch
        drover watch --status in-doubt --status cancelling
        drover watch --source shop --json | jq -r 'select(.state == "failed") | .request_id'

    Parameters
    ----------
    status
        Only requests that are in this state; may be repeated.
    source
        Only requests of this source; may be repeated.
    interval
        Seconds between two looks.
    json
        Print the changes as JSON lines.
    """
    if interval <= 0:
        raise ConfigurationError("--interval must be more than 0 seconds.")
    dsn = load_settings(hub=False).database_url.get_secret_value()
    wanted = Wanted(frozenset(status), frozenset(source))
    console = Console()
    if console.is_terminal and not json:
        asyncio.run(_show_table(dsn, wanted, interval, console))
    else:
        asyncio.run(_show_lines(dsn, wanted, interval, as_json=json))
    return 0


async def _show_table(dsn: str, wanted: Wanted, interval: float, console: Console) -> None:
    look: Look | None = None
    async with _reading(dsn) as database:
        with Live(console=console, screen=False, auto_refresh=False) as live:
            async for found in _looks(database, wanted, interval):
                look = found if isinstance(found, Look) else look
                problem = None if isinstance(found, Look) else str(found)
                live.update(table_of(look, max(console.height - 6, 1), problem), refresh=True)


async def _show_lines(dsn: str, wanted: Wanted, interval: float, *, as_json: bool) -> None:
    known: dict[str, StoredRequest] = {}
    told = ""
    async with _reading(dsn) as database:
        async for found in _looks(database, Wanted(sources=wanted.sources), interval):
            if not isinstance(found, Look):
                if str(found) != told:
                    sys.stderr.write(f"drover: {found}\n")
                told = str(found)
                continue
            told = ""
            for before, after in changes(known, found.requests):
                if wanted.takes(after):
                    sys.stdout.write(line_of(before, after, found.at, as_json=as_json) + "\n")
            sys.stdout.flush()
            known = {stored.request.request_id: stored for stored in found.requests}


@asynccontextmanager
async def _reading(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, size=1)
    await database.open()
    try:
        await check_migrations(database)
        yield database
    finally:
        await database.close()


async def _looks(database: Database, wanted: Wanted, interval: float) -> AsyncIterator[Look | DatabaseUnavailableError]:
    """One look after the other; a database that is away in between is told, and asked again."""
    reader, unended = RequestReader(database), dict[str, StoredRequest]()
    while True:
        try:
            page = [item for item in await reader.page(PAGE, states=wanted.states) if wanted.takes(item)]
            seen = {stored.request.request_id for stored in page}
            pushed_out = [await reader.find(request_id) for request_id in unended if request_id not in seen]
            requests = page + [item for item in pushed_out if item is not None and wanted.takes(item)]
            unended = {item.request.request_id: item for item in requests if not item.request.state.ended}
            yield Look(utc_now(), requests, await read_overview(database))
        except DatabaseUnavailableError as error:
            yield error
        await asyncio.sleep(interval)


# -- pure -------------------------------------------------------------------------------------------------------------


def changes(
    known: Mapping[str, StoredRequest], seen: Iterable[StoredRequest]
) -> list[tuple[StoredRequest | None, StoredRequest]]:
    """(before, after) of each request that is new here or has changed, the oldest first."""
    found = []
    for after in seen:
        before = known.get(after.request.request_id)
        if before is None or before.request.version != after.request.version:
            found.append((before, after))
    return sorted(found, key=lambda pair: pair[1].arrival)


def line_of(before: StoredRequest | None, after: StoredRequest, at: datetime, *, as_json: bool) -> str:
    """One change as one line."""
    request = after.request
    was = None if before is None else before.request.state.value
    if as_json:
        document = {
            "time": at.isoformat(),
            "request_id": request.request_id,
            "was": was,
            "state": request.state.value,
            "source": request.source,
            "model": request.model,
            "attempts": request.attempts,
            "outputs": [[output.generation_id, output.status.value, output.url] for output in request.outputs],
            "error": None if request.error is None else request.error.code.value,
        }
        return orjson.dumps(document).decode()
    parts = [f"{at:%H:%M:%S}", request.request_id, f"{was} -> {request.state.value}" if was else request.state.value]
    return printable("  ".join([*parts, request.source, about(after, at)]).rstrip())


def about(stored: StoredRequest, now: datetime) -> str:
    """In a few words: what it waits for, or what came of it."""
    request = stored.request
    match request.state:
        case RequestState.ACCEPTED if stored.next_attempt_at is not None and stored.next_attempt_at > now:
            return f"again in {span((stored.next_attempt_at - now).total_seconds())}"
        case RequestState.ACCEPTED:
            return "to be claimed"
        case RequestState.SUBMITTING:
            return f"sent by {stored.claimed_by or '?'}"
        case RequestState.IN_DOUBT if stored.doubted_at is not None:
            return f"answer lost at {clock(stored.doubted_at, now)}, {request.doubt_looks} of 2 looks"
        case RequestState.SUBMITTED:
            return " ".join(output.generation_id or "lost" for output in request.outputs)
        case RequestState.CANCELLING:
            return f"by {request.stop_cause.value if request.stop_cause else 'cancel'}"
    if request.error is not None:
        return f"{request.error.code.value}: {request.error.message}"
    return ""


def table_of(look: Look | None, height: int, problem: str | None) -> Table:
    """The table, as many rows as fit, with the counts above and what is wrong below."""
    if look is None:
        return Table(title=problem)
    view, now = look.overview, look.at
    counts = "  ".join(f"{state.value} {view.counts[state]}" for state in RequestState if view.counts.get(state))
    leader = view.leader or "nobody"
    title = f"{clock(now, now)}   {counts or 'nothing waits'}   leader: {leader}   to publish: {view.unpublished}"
    caption = problem or f"{min(len(look.requests), height)} of {len(look.requests)} shown; Ctrl-C ends"
    table = Table(*COLUMNS, title=title, caption=caption, expand=True)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for stored in look.requests[:height]:
        request = stored.request
        age = span((now - request.received_at).total_seconds())
        done = f"{sum(output.status.ended for output in request.outputs)}/{request.num_generations}"
        cells = [
            request.request_id,
            request.state.value,
            request.source,
            request.model,
            age,
            str(request.attempts),
            done,
        ]
        style = STYLES.get(request.state, "")
        table.add_row(*(Text(printable(cell), style=style) for cell in [*cells, about(stored, now)]))
    return table
