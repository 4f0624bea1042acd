"""Folders with a `service` of another version, to be run as processes with this environment's libraries.

The next version is the present one with two migrations more, as a release brings them: a column that its code writes,
and an index that it can do without.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path
from subprocess import run

from service.postgres.statements import NAME
from tests.support.replica import environment
from tests.support.servers import REPOSITORY

ARCHIVE = Path(__file__).parent / "previous" / "drover-0.1.0.tar.gz"
NOWHERE = ("amqp://nobody@127.0.0.1:1/", "http://127.0.0.1:1")  # a migration asks neither broker nor hub
COLUMN = "9001_written_by"
INDEX = "9002_by_writer"
PLANTED = {
    COLUMN: "alter table requests add column written_by text not null default 'previous';\n",
    INDEX: "-- needed: no\n-- transaction: no\ncreate index concurrently by_writer on requests (written_by);\n",
}
# The next version's code: what `insert_requests` says today, and what it will say.
EDITS = {
    "tracestate, received_at, next_attempt_at\n": "tracestate, received_at, next_attempt_at, written_by\n",
    "            else '-infinity' end\n    from incoming i\n": (
        "            else '-infinity' end, 'next'\n    from incoming i\n"
    ),
}


def unpack_previous(folder: Path) -> Path:
    """The version before this one."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def make_next(folder: Path) -> Path:
    """The version after this one."""
    shutil.copytree(REPOSITORY / "service", folder / "service", ignore=shutil.ignore_patterns("__pycache__"))
    postgres = folder / "service" / "postgres"
    for title, sql in PLANTED.items():
        (postgres / "migrations" / f"{title}.sql").write_text(sql)
    intake = postgres / "sql" / "intake.sql"
    text = intake.read_text()
    for before, after in EDITS.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    intake.write_text(text)
    return folder


def statements_of(tree: Path) -> dict[str, str]:
    """Its named statements."""
    found: dict[str, str] = {}
    for file in (tree / "service" / "postgres" / "sql").iterdir():
        _, *parts = NAME.split(file.read_text("utf-8"))
        found.update(zip(parts[::2], parts[1::2], strict=True))
    return found


def migrate(tree: Path, database_url: str) -> None:
    """`drover migrate` of that version."""
    amqp_url, hub_url = NOWHERE
    variables = environment(amqp_url, database_url, hub_url)
    run([sys.executable, "-m", "service", "migrate"], check=True, cwd=tree, env=variables, capture_output=True)
