"""Verdicts about Postgres: reached, let in, writable, the schema as found against as wanted, privileges, who leads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from service.cli.doctor.check import Check, fault, not_checked, ok, sentence, warning
from service.postgres.database import SESSION, TLS
from service.postgres.probe import DatabaseState, Reach, Schema, Server

OLDEST_VERSION = 140_000
POOLED = (
    "a pooler gives each transaction another server process; prepared statements then fail (26000, 42P05), and LISTEN "
    "hears nothing"
)
NO_POOLER = "Connect to Postgres itself, or to a pooler in session mode (PgBouncer: `pool_mode = session`)."
IGNORED = ",".join(name for name in SESSION if name != "application_name")
TAKE_SETTINGS = (
    f"{NO_POOLER} In session mode let PgBouncer take the settings (`ignore_startup_parameters = {IGNORED}`), and give "
    "them to the role instead; doctor then tells which."
)
UNREACHED = {
    Reach.NO_ANSWER: ("database.connection", "Start Postgres, or mend host and port of DROVER_DATABASE_URL."),
    Reach.LOGIN_REFUSED: (
        "database.login",
        (
            "Mend user and password of DROVER_DATABASE_URL, or `alter role ... password ...`; see pg_hba.conf, too: it "
            "may want TLS (sslmode=verify-full and sslrootcert=) or a client certificate (sslcert= and sslkey=)."
        ),
    ),
    Reach.NO_DATABASE: (
        "database.connection",
        "Create it (`createdb`), or mend the path of DROVER_DATABASE_URL; then run `drover migrate`.",
    ),
    Reach.NOT_PERMITTED: ("database.login", "Grant it: `grant connect on database ... to ...`."),
    Reach.POOLER_REFUSES: ("database.pooler", TAKE_SETTINGS),
    Reach.POOLED: ("database.pooler", NO_POOLER),
    Reach.WRONG_URL: ("database.connection", "Mend DROVER_DATABASE_URL."),
}


def judge_database(state: DatabaseState, dsn: str, *, migrates_on_start: bool) -> list[Check]:
    """All verdicts; one alone when there is no connection to look through."""
    server = state.server
    if state.tls is not None:
        remedy = f"{sentence(TLS.remedy(state.tls))}."
        return [fault("database.tls", f"Postgres at {_address(dsn)}: {state.tls}.", remedy)]
    if state.reach is not Reach.OPEN or server is None:
        name, remedy = UNREACHED.get(state.reach, UNREACHED[Reach.WRONG_URL])
        told = POOLED if state.reach is Reach.POOLED else state.told.removesuffix(".")
        return [fault(name, f"{_address(dsn)}: {told}.", remedy)]
    return [
        _version(server, _address(dsn)),
        _writable(server),
        _durable(server),
        *_settings(state.lost_settings, server),
        _migrations(state.schema, server, migrates_on_start=migrates_on_start),
        *_privileges(state, server),
        _leadership(state),
    ]


def _address(dsn: str) -> str:
    parts = urlsplit(dsn)
    return f"{parts.hostname or 'the default host'}:{parts.port or 5432}{parts.path}"


def _version(server: Server, address: str) -> Check:
    found = f"Postgres {server.version_told} at {address}, as {server.account!r}"
    if server.version < OLDEST_VERSION:
        return fault("database.connection", f"{found}: too old.", "Use Postgres 14 or later.")
    return ok("database.connection", found + ".")


def _writable(server: Server) -> Check:
    if server.standby:
        return fault(
            "database.writable",
            "The server is a standby: it answers, and takes no writes.",
            "Point DROVER_DATABASE_URL at the primary (or name all hosts, with target_session_attrs=read-write).",
        )
    if server.read_only:
        return fault(
            "database.writable",
            "Transactions are read-only (default_transaction_read_only): it answers, and takes no writes.",
            f"`alter database {server.database} reset default_transaction_read_only`; if that changes nothing, look "
            f"for it at the role ({server.account}), in postgresql.conf, and in the options of DROVER_DATABASE_URL.",
        )
    return ok("database.writable", "It takes writes.")


def _durable(server: Server) -> Check:
    if server.fsync and server.synchronous_commit != "off":
        return ok("database.durable", "What is committed survives a crash.")
    setting = "fsync" if not server.fsync else "synchronous_commit"
    return warning(
        "database.durable",
        f"{setting} is off: a crash of the server loses requests that drover has acknowledged.",
        f"Set {setting} to on, and reload Postgres.",
    )


def _settings(lost: Sequence[str], server: Server) -> Iterator[Check]:
    """Only a pooler can take them away."""
    if lost:
        commands = " ".join(f"alter role {server.account} set {name} = '{SESSION[name]}';" for name in lost)
        yield warning(
            "database.pooler",
            f"A pooler drops what drover sets for its sessions: {', '.join(lost)}. Some queries may read whole tables "
            "then, and a replica that freezes keeps its locks.",
            f"`{commands}`, and restart the pooler's sessions.",
        )


def _migrations(schema: Schema | None, server: Server, *, migrates_on_start: bool) -> Check:
    name = "database.migrations"
    if schema is None:
        return fault(
            name,
            f"The user {server.account!r} may not read the table schema_migrations.",
            f"`grant select on schema_migrations to {server.account}`, as its owner.",
        )
    if schema.changed:
        return fault(
            name,
            f"{', '.join(schema.changed)}: changed after they had been applied.",
            "Restore the files of the version that applied them; a change of the schema is a new migration.",
        )
    if schema.missing:
        how = "Run `drover migrate`" + (", or start `drover serve`, which does it." if migrates_on_start else ".")
        if not server.may_create:
            how += (
                f" The user {server.account!r} may not create tables: `grant create on schema "
                f"{server.schema or 'public'} to {server.account}`, or migrate as a user who may."
            )
        return fault(name, f"The database lacks {', '.join(schema.missing)}.", how)
    if schema.unknown:
        return warning(
            name,
            f"The schema is newer than this version of drover: it has {', '.join(schema.unknown)}.",
            "Run the version that brought them. This one may go on meanwhile if it is the release before that one.",
        )
    if schema.left_out:
        return warning(
            name,
            f"The database lacks {', '.join(schema.left_out)}, which this version can do without.",
            "Run `drover migrate`.",
        )
    return ok(name, f"The schema is this version's ({schema.latest}).")


def _privileges(state: DatabaseState, server: Server) -> Iterator[Check]:
    if not state.denied:
        return
    denied: dict[str, list[str]] = {}
    for table, privilege in state.denied:
        denied.setdefault(table, []).append(privilege)
    told = "; ".join(f"{', '.join(privileges)} on {table}" for table, privileges in denied.items())
    grants = "; ".join(f"grant {', '.join(names)} on {table} to {server.account}" for table, names in denied.items())
    yield fault(
        "database.privileges",
        f"The user {server.account!r} lacks {told}.",
        f"As the tables' owner: `{grants}` (or run deploy/postgres/roles.sql again).",
    )


def _leadership(state: DatabaseState) -> Check:
    lease = state.lease
    name, start = "database.leadership", "Start a replica with `drover serve`."
    if (state.schema is not None and "0001_spine" in state.schema.missing) or ("leadership", "select") in state.denied:
        return not_checked(name, "The table leadership is not there, or may not be read.")
    if lease is None:
        return warning(name, "Nobody leads: nothing is published, and the hub's events are not heard.", start)
    if lease.left_s < 0:
        return warning(
            name,
            f"Nobody leads: the lease of {lease.holder} (term {lease.term}) ran out {-lease.left_s:.0f} s ago.",
            f"{start} When replicas run, their logs say what keeps them from the database.",
        )
    found = f"{lease.holder} leads (term {lease.term}, {lease.left_s:.1f} s of the lease left)"
    if lease.stream_opened_at is None:
        return warning(
            name,
            f"{found}, but does not hear the hub's events.",
            "See the checks of the hub here, and `stream.` in the leader's log; it looks for what it missed itself.",
        )
    return ok(name, f"{found}, and has heard the hub since {lease.stream_opened_at:%Y-%m-%d %H:%M:%S} UTC.")
