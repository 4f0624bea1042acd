"""Judges migrations after 0007 by the rules of deploy/ROLLOUT.md: two releases can live with each, and none holds a
lock for long. What there is no rule for is a fault: then somebody decides what it means, and adds one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from service.domain.errors import ConfigurationError
from service.postgres.schema import Migration

LAST_WITHOUT_RULES = 7  # what came before the first release
SAYINGS = {"needed": r"no", "transaction": r"no", "safe since": r"\d+\.\d+\.\d+"}
INDEXED = re.compile(
    r"create (?P<unique>unique )?index (?P<concurrently>concurrently )?\w+ on (?:only )?(?P<table>\w+)"
)
CREATED = re.compile(r"create table (?:if not exists )?(\w+)")
VOLATILE = re.compile(
    r"\b(?:random|gen_random_uuid|clock_timestamp|timeofday|nextval)\s*\(|\bgenerated\b|\b(?:small|big)?serial\b"
)
CONSTRAINED = re.compile(r"\b(?:unique|primary key|references|check)\b")
# Of an action of `alter table`: nobody notices, or it takes a release before that can live with it.
HARMLESS = re.compile(r"validate constraint \w+|alter column \w+ set (?:default .*|statistics \d+)|(?:re)?set \(.*\)")
AWAITED = re.compile(
    r"add constraint \w+ (?:check|foreign key) .* not valid|drop (?:column|constraint) (?:if exists )?\w+"
    r"|rename (?:column |to |constraint )?.*|alter column \w+ (?:set not null|drop not null|drop default)"
)
AWAITED_STATEMENT = re.compile(
    r"drop (?:table|type|index) (?:concurrently )?(?:if exists )?\w+|alter (?:table|type|index) \w+ rename .*"
    r"|alter type \w+ add value .*"
)
DROPS = re.compile(r"\bdrop (?!not null|default)")


def faults(migrations: Sequence[Migration], release: str) -> list[str]:
    """Each rule that a migration breaks, in words. `release`: the version that they are to come with."""
    versions = [migration.version for migration in migrations]
    found = [f"{two:04d} follows {one:04d}" for one, two in pairwise(versions) if two != one + 1]
    if versions[:1] not in ([], [1]):
        found.append("the first one is not 0001")
    for migration in migrations:
        if migration.version > LAST_WITHOUT_RULES:
            found += [f"{migration.title}: {fault}" for fault in _faults(migration, release)]
    return found


def _faults(migration: Migration, release: str) -> Iterator[str]:
    yield from _faulty_sayings(migration, release)
    statements = [" ".join(text.lower().split()) for text in migration.statements]
    if "'" in migration.sql and any(";" in literal for literal in re.findall(r"'[^']*'", migration.sql)):
        yield "has a semicolon in a literal, which nothing here can read"
    if not statements:
        yield "says nothing"
    if not migration.transactional:
        try:
            migration.index  # noqa: B018 - reading it is the check
        except ConfigurationError as error:
            yield str(error)
    new = {match[1] for text in statements if (match := CREATED.match(text))}
    ready = "safe since" in migration.sayings
    for text in statements:
        yield from _faulty_statement(text, new, ready=ready, transactional=migration.transactional)
    if migration.needed and any(DROPS.search(text) for text in statements):
        yield "drops something, and yet does not say `needed: no`"


def _faulty_sayings(migration: Migration, release: str) -> Iterator[str]:
    for key, value in migration.sayings.items():
        if key not in SAYINGS or not re.fullmatch(SAYINGS[key], value):
            yield f"says `{key}: {value}` in its head, which nothing reads"
        elif key == "safe since" and _numbers(value) >= _numbers(release):
            yield f"is safe since {value} and would come with {release}: that is one release too early"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:3])


def _faulty_statement(text: str, new: set[str], *, ready: bool, transactional: bool) -> Iterator[str]:
    if (match := INDEXED.match(text)) is not None:
        if match["table"] not in new:
            yield from _faulty_index(match, ready=ready, transactional=transactional)
    elif (match := re.match(r"alter table (?:if exists )?(?:only )?(\w+) (.*)", text)) is not None:
        if match[1] not in new:
            for action in _actions(match[2]):
                yield from _faulty_action(action, ready=ready)
    elif (match := re.match(r"(?:insert into|update|delete from) (\w+)", text)) is not None:
        if match[1] not in new:
            yield f"writes rows of {match[1]} in one go; let code do it in batches"
    elif AWAITED_STATEMENT.fullmatch(text):
        yield from _faulty_removal(text, ready=ready, transactional=transactional)
    elif not re.match(r"create table |create type |comment on ", text):
        yield f"`{text}` has no rule"


def _faulty_index(match: re.Match[str], *, ready: bool, transactional: bool) -> Iterator[str]:
    if not match["concurrently"] or transactional:
        yield f"indexes {match['table']} while nobody can write it; use `concurrently` and `transaction: no`"
    if match["unique"] and not ready:
        yield f"demands of {match['table']} what the release before may not keep; say `safe since`"


def _faulty_removal(text: str, *, ready: bool, transactional: bool) -> Iterator[str]:
    if not ready:
        yield f"`{text}` takes away or adds what the release before may not know; say `safe since`"
    if "concurrently" in text and transactional:
        yield "drops an index `concurrently` in a transaction; say `transaction: no`"


def _faulty_action(action: str, *, ready: bool) -> Iterator[str]:
    if (
        match := re.match(
            r"add (?:column )?(?!constraint |primary |unique |check |foreign )(?:if not exists )?(\w+) (.*)", action
        )
    ) is not None:
        column, rest = match.groups()
        if "not null" in rest and "default" not in rest:
            yield f"demands {column} of the release before, which does not know it; give it a default"
        if VOLATILE.search(rest):
            yield f"writes every row for {column}; add it without a default"
        if CONSTRAINED.search(rest):
            yield f"reads every row for {column}; add the constraint apart, `not valid`, and validate it"
    elif AWAITED.fullmatch(action):
        if not ready:
            yield f"`{action}` is nothing that the release before can live with; say `safe since`"
    elif not HARMLESS.fullmatch(action):
        yield f"`{action}` has no rule, or holds a lock for long"


def _actions(text: str) -> list[str]:
    """The actions of one `alter table`, cut at the commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
