"""`drover dead`: look at the quarantine, give letters back to the service, throw them away."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from cyclopts import App as Cli
from cyclopts import Parameter

from service.cli.letters import details_of, print_details, print_json, print_list, summary_of
from service.clock import utc_now
from service.domain.errors import ConfigurationError, DroverError
from service.rabbit.dead_letters import LETTER_ID, DeadLetter
from service.rabbit.quarantine import Choice, Quarantine
from service.rabbit.topology import DEAD
from service.settings import load_settings

dead = Cli(name="dead", help=f"Messages in quarantine (the queue {DEAD}): list, show, replay, purge.")
All = Annotated[bool, Parameter(name="--all", negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@dead.command(name="list")
def list_letters(*, limit: int = 50, reason: str | None = None, json: Flag = False) -> int:
    """List the messages in quarantine, oldest first, without their bodies. They stay where they are.

    For example:

        drover dead list --reason delivery_limit
        drover dead list --json | jq -r '.messages[].id'

    Parameters
    ----------
    limit
        How many at most.
    reason
        Only those that are there for this reason, such as invalid_message or delivery_limit.
    json
        Print the list as JSON.
    """
    if limit < 1:
        raise ConfigurationError("--limit must be at least 1.")

    async def read() -> tuple[int, list[dict[str, object]]]:
        async with _quarantine() as quarantine:
            total, now = await quarantine.count(), utc_now()
            found = quarantine.find(Choice(reason=reason, limit=limit))
            return total, [summary_of(held.letter, now, held.position) async for held in found]

    total, rows = asyncio.run(read())
    if json:
        print_json({"queue": DEAD, "total": total, "messages": rows})
    else:
        print_list(rows, total)
    return 0


@dead.command
def show(letter_id: str, /, *, json: Flag = False) -> int:
    """Show everything about one message in quarantine, its body included. It stays where it is.

    For example:

        drover dead show 0123456789ab
        drover dead show 0123456789ab --json | jq -r .body

    Parameters
    ----------
    letter_id
        Its id, from `drover dead list`.
    json
        Print it as JSON.
    """
    choice = _choice((letter_id,), None, everything=False)

    async def read() -> dict[str, object] | None:
        found = None
        async with _quarantine() as quarantine:
            async for held in quarantine.find(choice):  # to its end: it may read on to keep the order
                found = found or details_of(held.letter, utc_now(), held.position)
        return found

    details = asyncio.run(read())
    if details is None:
        return _missing([letter_id])
    if json:
        print_json(details)
    else:
        print_details(details)
    return 0


@dead.command
def replay(
    *letter_ids: str, reason: str | None = None, all_: All = False, dry_run: Flag = False, json: Flag = False
) -> int:
    """Give messages back to the queues they came from, and take them out of quarantine.

    Each is published and confirmed before it is taken out, so that none is lost; one that is doubled by a crash in
    between is the same request to drover, and is not paid for twice. What is still wrong with it comes back.

        drover dead replay 0123456789ab
        drover dead replay --reason delivery_limit --dry-run

    Parameters
    ----------
    letter_ids
        Their ids, from `drover dead list`.
    reason
        All that are there for this reason.
    all_
        All of them.
    dry_run
        Only say which ones.
    json
        Print them as JSON.
    """
    choice = _choice(letter_ids, reason, everything=all_)

    async def letters(quarantine: Quarantine) -> AsyncIterator[DeadLetter]:
        if not dry_run:
            async for letter in quarantine.replay(choice):
                yield letter
            return
        async for held in quarantine.find(choice):
            yield held.letter

    return asyncio.run(_each(letters, choice, "to_replay" if dry_run else "replayed", as_json=json))


@dead.command
def purge(*letter_ids: str, reason: str | None = None, all_: All = False, yes: Flag = False, json: Flag = False) -> int:
    """Throw messages in quarantine away, for ever.

    For example:

        drover dead purge 0123456789ab
        drover dead purge --reason invalid_message --yes

    Parameters
    ----------
    letter_ids
        Their ids, from `drover dead list`.
    reason
        All that are there for this reason.
    all_
        All of them.
    yes
        Do not ask.
    json
        Print them as JSON.
    """
    choice = _choice(letter_ids, reason, everything=all_)
    if not yes and not _confirmed(choice):
        print("drover: nothing was purged.", file=sys.stderr)  # noqa: T201 - the command line prints
        return 1
    if all_:
        purged = asyncio.run(_purge_all())
        if json:
            print_json({"purged": purged})
        else:
            sys.stdout.write(f"purged: {purged}\n")
        return 0
    return asyncio.run(_each(lambda quarantine: quarantine.purge(choice), choice, "purged", as_json=json))


# -- what they share --------------------------------------------------------------------------------------------------


def _quarantine() -> Quarantine:
    return Quarantine(load_settings(hub=False).amqp_url.get_secret_value())


def _choice(letter_ids: Sequence[str], reason: str | None, *, everything: bool) -> Choice:
    """What was asked for. ConfigurationError unless it is exactly one of ids, a reason, and everything."""
    if sum((bool(letter_ids), reason is not None, everything)) != 1:
        raise ConfigurationError("Name the messages in one way: by their ids, with --reason, or with --all.")
    wrong = next((given for given in letter_ids if not LETTER_ID.fullmatch(given)), None)
    if wrong is not None:
        raise ConfigurationError(f"{wrong!r} is no id: they have 12 digits out of 0-9 a-f; see `drover dead list`.")
    return Choice(frozenset(letter_ids), reason)


def _confirmed(choice: Choice) -> bool:
    """Asks a person; ConfigurationError where there is none."""
    if not sys.stdin.isatty():
        raise ConfigurationError("A purge cannot be undone; say --yes where there is no terminal to ask.")
    what = f"{len(choice.ids)} message(s)" if choice.ids else f"every {choice.reason or ''} message".replace("  ", " ")
    sys.stderr.write(f"Throw {what} of {DEAD} away, for ever? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _purge_all() -> int:
    async with _quarantine() as quarantine:
        return await quarantine.purge_all()


async def _each(
    letters: Callable[[Quarantine], AsyncIterator[DeadLetter]], choice: Choice, done: str, *, as_json: bool
) -> int:
    """Does it, and prints what was done, also when it broke off; 1 when an id was not found."""
    rows: list[dict[str, object]] = []
    found: set[str] = set()

    def report() -> None:
        if as_json:
            print_json({done: count, "messages": rows, "not_found": sorted(choice.ids - found)})
        else:
            sys.stdout.write(f"{done}: {count}\n")

    count = 0
    try:
        async with _quarantine() as quarantine:
            async for letter in letters(quarantine):
                count += 1
                found.add(letter.letter_id)
                if as_json:
                    rows.append(summary_of(letter, utc_now()))
                else:
                    sys.stdout.write(f"{done} {letter.letter_id} {letter.reason} {letter.queue}\n")
    except DroverError:
        if count:
            report()
        raise
    report()
    missing = sorted(choice.ids - found)
    return _missing(missing) if missing else 0


def _missing(letter_ids: Sequence[str]) -> int:
    print(  # noqa: T201 - the command line prints
        f"drover: {', '.join(letter_ids)} is not in {DEAD}, or somebody else is reading it; see `drover dead list`.",
        file=sys.stderr,
    )
    return 1
