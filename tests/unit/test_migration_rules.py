"""Every migration from 0008 on is a step that two releases can live with, and that stops nobody.

Each rule is also shown a migration that breaks it, so that a rule which no longer sees anything fails here.
"""

from __future__ import annotations

from importlib.metadata import version

import pytest

from service.domain.errors import ConfigurationError
from service.postgres.schema import Migration, available, missing
from tests.unit.migration_rules import LAST_WITHOUT_RULES, faults

FOREVER = {
    1: "c1d7d4ab",
    2: "ec5d42c7",
    3: "5bfcd4b3",
    4: "5ce2fad3",
    5: "845436f2",
    6: "950081a6",
    7: "c06e66b0",
}
SAFE = "-- safe since: 0.2.0\n"
CONCURRENTLY = "-- needed: no\n-- transaction: no\n"


def judged(sql: str, release: str = "0.3.0") -> list[str]:
    """What the rules say of it as the next migration."""
    return faults([Migration(number, "before", "") for number in range(1, 8)] + [Migration(8, "planted", sql)], release)


def test_the_migrations_keep_to_the_rules() -> None:
    assert faults(available(), version("drover")) == []


def test_what_came_before_the_first_release_is_as_it_was() -> None:
    came_before = [migration for migration in available() if migration.version <= LAST_WITHOUT_RULES]
    assert {migration.version: migration.checksum[:8] for migration in came_before} == FOREVER


@pytest.mark.parametrize("versions", [[1, 2, 2], [1, 3], [2, 3], [1, 2, 4]])
def test_a_number_that_comes_twice_or_is_left_out_is_seen(versions: list[int]) -> None:
    assert len(faults([Migration(number, "planted", "") for number in versions], "0.3.0")) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "alter table requests drop column seed;",
        SAFE + "alter table requests drop column seed;",  # does not say `needed: no`
        "-- needed: no\nalter table requests drop column if exists seed;",
        "alter table requests rename column seed to seeds;",
        "alter table requests rename to orders;",
        "alter table requests alter column seed type text;",
        SAFE + "alter table requests alter column seed type text;",
        "alter table requests alter column seed set data type text;",
        "alter table requests alter column seed set not null;",
        "alter table requests alter column model drop not null;",
        "alter table requests alter column model drop default;",
        "-- needed: no\nalter table requests drop constraint finished_when_ended;",
        "alter table requests add column colour text not null;",
        "alter table requests add colour text not null;",
        "alter table requests add column if not exists colour text not null;",
        "alter table requests add column good text, add column colour text not null;",
        "alter table requests add column token uuid not null default gen_random_uuid();",
        "alter table requests add column number bigserial;",
        "alter table requests add column number bigint generated always as identity;",
        "alter table requests add column colour text check (colour <> '');",
        "alter table requests add column colour text references colours;",
        "alter table requests add column colour text unique;",
        "alter table requests add constraint cheap check (seed > 0);",
        "alter table requests add constraint cheap check (seed > 0) not valid;",
        "alter table requests add constraint one unique (seed);",
        "alter table requests add primary key (seed);",
        "alter table requests set unlogged;",
        "alter table requests set tablespace other;",
        "alter table requests disable trigger all;",
        "-- needed: no\ndrop table limits;",
        "-- needed: no\ndrop index requests_due;",
        SAFE + "-- needed: no\ndrop index concurrently requests_due;",
        SAFE + "drop type stop_cause;",
        "alter type request_state add value 'paused';",
        "alter index requests_due rename to due;",
        "create index found on requests (seed);",
        "create index concurrently found on requests (seed);",
        "-- transaction: no\ncreate index found on requests (seed);",
        CONCURRENTLY + "create unique index concurrently found on requests (seed);",
        CONCURRENTLY
        + "create index concurrently one on requests (seed);\ncreate index concurrently two on outputs (x);",
        "-- transaction: no\nalter table requests add column colour text;",
        "update requests set seed = 1;",
        "delete from outbox;",
        "insert into limits (lane) values ('other');",
        "lock table requests;",
        "truncate limits;",
        "vacuum full requests;",
        "reindex table requests;",
        "cluster requests using requests_due;",
        "begin; commit;",
        "do $$ begin perform 1; end $$;",
        "create trigger t before insert on requests execute function f();",
        "comment on table requests is 'a; b';",
        "-- nothing\n",
        "-- needed: No\ncreate table colours (name text);",
        "-- transaktion: no\ncreate table colours (name text);",
        "-- safe since: soon\ncreate table colours (name text);",
        "-- safe since: 0.3.0\n-- needed: no\ndrop index requests_due;",  # the release that it comes with
        "-- safe since: 0.10.0\n-- needed: no\ndrop index requests_due;",
    ],
)
def test_a_step_that_the_release_before_cannot_live_with_is_seen(sql: str) -> None:
    assert judged(sql) != []


@pytest.mark.parametrize(
    "sql",
    [
        """-- What for.

        create table colours (name text primary key, since timestamptz not null);
        create unique index colours_since on colours (since);
        insert into colours values ('red', now());
        alter table colours add column hue integer not null;
        """,
        "create type colour as enum ('red', 'blue');",
        "alter table requests add column colour text, add column hue numeric(3, 1) not null default 0;",
        "alter table requests add column noted_at timestamptz not null default now();",
        "alter table limits set (fillfactor = 50);",
        "alter table requests validate constraint cheap;",
        "alter table requests alter column priority set default 4;",
        SAFE + "alter table requests add constraint cheap check (seed > 0) not valid;",
        SAFE + "alter table requests alter column model drop not null;",
        SAFE + "-- needed: no\nalter table requests drop column seed;",
        SAFE + "-- needed: no\ndrop table limits;",
        SAFE + "alter type request_state add value 'paused';",
        CONCURRENTLY + "-- What for.\ncreate index concurrently found on requests (seed) where seed is not null;",
        SAFE + CONCURRENTLY + "create unique index concurrently found on requests (seed);",
        SAFE + CONCURRENTLY + "drop index concurrently requests_due;",
    ],
)
def test_a_step_that_both_releases_can_live_with_is_let_through(sql: str) -> None:
    assert judged(sql) == []


def test_what_a_migration_says_of_itself_stands_in_its_first_lines_alone() -> None:
    plain = Migration(8, "plain", "-- Reading: pages\n\n-- needed: no\ncreate table t (x text); -- transaction: no\n")
    assert (plain.needed, plain.transactional) == (True, True)
    index = Migration(8, "index", CONCURRENTLY + "-- For pages.\ncreate index concurrently Found on requests (seed);")
    assert (index.needed, index.transactional, index.index) == (False, False, ("found", True))
    with pytest.raises(ConfigurationError, match="0008_odd runs outside a transaction"):
        Migration(8, "odd", "-- transaction: no\nvacuum;").index  # noqa: B018 - reading it is the test


def test_what_is_missing_is_told_apart_from_what_was_changed() -> None:
    migrations = [Migration(1, "one", "x"), Migration(2, "two", "y")]
    assert missing(migrations, {1: migrations[0].checksum, 9: "of a later version"}) == [migrations[1]]
    with pytest.raises(ConfigurationError, match="0001_one was changed"):
        missing(migrations, {1: "another"})
