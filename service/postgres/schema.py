"""The migrations that come with this version: what each says in its head, and which of them a database lacks.

Two versions run side by side during a rollout, so every step from 0008 on is one that both can live with: see
deploy/ROLLOUT.md for the rules; tests/unit/migration_rules.py judges the files by them. Its first lines may say:

    -- needed: no           the code can do without it (an index, what is dropped): replicas start before it is applied
    -- transaction: no      one `create index concurrently` or `drop index concurrently`, which no transaction may hold
    -- safe since: 0.2.0    from that release on the code can live with what it takes away or demands
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from service.domain.errors import ConfigurationError

FILE = re.compile(r"(\d{4})_(\w+)\.sql")
SAYING = re.compile(r"-- ([a-z][a-z ]*): (.*)")
INDEX = re.compile(
    r"(?P<verb>create|drop)\s+(?:unique\s+)?index\s+concurrently\s+(?P<name>\w+)(?:\s+on\b.*)?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; the checksum shows later whether it was changed after it had been applied."""

    version: int
    name: str
    sql: str

    @property
    def title(self) -> str:
        """`0008_name`, as people are told of it."""
        return f"{self.version:04d}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def sayings(self) -> dict[str, str]:
        """What the comment at its top says, `key: value` a line."""
        head = re.match(r"(?:--.*\n)*", self.sql)
        lines = head[0].splitlines() if head else []
        return {match[1]: match[2] for line in lines if (match := SAYING.fullmatch(line))}

    @property
    def needed(self) -> bool:
        """Whether the code of this version cannot work without it."""
        return self.sayings.get("needed") != "no"

    @property
    def transactional(self) -> bool:
        """Whether it is applied in a transaction."""
        return self.sayings.get("transaction") != "no"

    @property
    def statements(self) -> list[str]:
        """Its statements without comments. (Of a text with a semicolon in a literal, too many.)"""
        return [text for part in re.sub(r"--.*", "", self.sql).split(";") if (text := part.strip())]

    @property
    def index(self) -> tuple[str, bool]:
        """Of one without a transaction: the index, and whether it is made (else dropped). ConfigurationError."""
        if len(self.statements) == 1 and (match := INDEX.fullmatch(self.statements[0])):
            return match["name"].lower(), match["verb"].lower() == "create"
        raise ConfigurationError(
            f"Migration {self.title} runs outside a transaction, where nothing may stand but one `create index "
            "concurrently NAME on ...` or `drop index concurrently NAME`."
        )


def available(folder: Path | None = None) -> list[Migration]:
    """The migrations that come with this version (or are in that folder), in order."""
    place = files("service.postgres").joinpath("migrations") if folder is None else folder
    found = [
        Migration(int(match[1]), match[2], entry.read_text("utf-8"))
        for entry in place.iterdir()
        if (match := FILE.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def missing(migrations: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Those that are not applied, in order. `applied`: version to checksum. ConfigurationError for a changed one."""
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise ConfigurationError(
                f"Migration {migration.title} was changed after it had been applied; "
                "restore the file and add a new migration instead."
            )
    return [migration for migration in migrations if migration.version not in applied]


def titles(migrations: Sequence[Migration]) -> str:
    """Their titles, for people."""
    return ", ".join(migration.title for migration in migrations)
