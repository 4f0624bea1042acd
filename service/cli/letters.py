"""How dead letters are shown: as a table on a terminal, as plain columns elsewhere, as JSON on request."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.printable import printable
from service.rabbit.dead_letters import DeadLetter, message_of, readable
from service.wire.envelope import read_document, read_request_id

COLUMNS = ("position", "id", "age", "reason", "queue", "source", "request_id", "size")
Row = Mapping[str, object]


def summary_of(letter: DeadLetter, now: datetime, position: int | None = None) -> dict[str, object]:
    """What may be seen of a letter in a list: nothing of its body but its size and the request's id."""
    age = None if letter.died_at is None else max((now - letter.died_at).total_seconds(), 0.0)
    return {
        **({} if position is None else {"position": position}),
        "id": letter.letter_id,
        "reason": letter.reason,
        "died_at": None if letter.died_at is None else letter.died_at.isoformat(),
        "age_s": None if age is None else round(age),
        "queue": letter.queue,
        "source": letter.source,
        "request_id": request_id_of(letter),
        "size": len(letter.body),
    }


def request_id_of(letter: DeadLetter) -> str | None:
    """The request that it is about, whatever else is wrong with it; None when it has no usable id."""
    message = message_of(letter)
    found = read_request_id(message, read_document(message)[0])
    return found if isinstance(found, str) else None


def details_of(letter: DeadLetter, now: datetime, position: int) -> dict[str, object]:
    """Everything; the body as text where it is text, else in base64."""
    properties, headers = readable(letter)
    return {
        **summary_of(letter, now, position),
        "detail": letter.detail,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "properties": _plain(properties),
        "headers": "left out: they were too large" if letter.left_out else _plain(headers),
        **_body(letter.body),
    }


def print_json(document: object) -> None:
    """One document, one line."""
    sys.stdout.write(orjson.dumps(document).decode() + "\n")


def print_list(rows: Sequence[Row], total: int) -> None:
    """The letters as a table, and how many there are beside them."""
    cells = [[_cell(row, name) for name in COLUMNS] for row in rows]
    console = Console()
    if console.is_terminal:
        table = Table(*COLUMNS)
        for line in cells:
            table.add_row(*map(Text, line))
        console.print(table)
        console.print(f"{len(rows)} of {total}", highlight=False)
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells, strict=True)]
    for line in [list(COLUMNS), *cells]:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def print_details(details: Row) -> None:
    """One letter, a line for each thing; the body last, with escapes for what would move a terminal's cursor."""
    for name, value in details.items():
        if name in ("properties", "headers") and isinstance(value, dict):
            for key, item in value.items():
                sys.stdout.write(f"{name}.{printable(key)}: {printable(_text(item))}\n")
        elif name == "body":
            sys.stdout.write(f"body:\n{printable(str(value), keep=chr(10) + chr(9))}\n")
        else:
            sys.stdout.write(f"{name}: {printable(_text(value))}\n")


def _cell(row: Row, name: str) -> str:
    return _age(row["age_s"]) if name == "age" else printable(_text(row[name]))


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _age(seconds: object) -> str:
    if not isinstance(seconds, int):
        return "-"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _plain(value: object) -> object:
    """Values of AMQP as those of JSON."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bytes() | bytearray():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode()}
        case datetime():
            return value.isoformat()
        case Decimal():
            return str(value)
    return value


def _body(body: bytes) -> dict[str, object]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
