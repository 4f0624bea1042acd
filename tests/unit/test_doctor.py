"""What doctor makes of what was found: every fault has its remedy, and what is merely so is not called wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from service.cli.doctor.broker import Account, judge_broker
from service.cli.doctor.check import Check, Level
from service.cli.doctor.clocks import Reading, judge_clocks
from service.cli.doctor.configuration import judge_settings
from service.cli.doctor.database import judge_database
from service.cli.doctor.hub import judge_hub
from service.hub import probe as hub_probe
from service.hub.probe import Answer, HubState
from service.postgres import probe as postgres_probe
from service.postgres.probe import DatabaseState, Lease, Schema, Server
from service.rabbit import probe as rabbit_probe
from service.rabbit.probe import BrokerState, Declared, Found, Refusal
from service.rabbit.topology import EXCHANGES, QUEUES

CANARY = "tr0ub4dor"
ACCOUNT = Account.of(f"amqp://me:{CANARY}@rabbit:5673/shop")
DSN = f"postgresql://me:{CANARY}@postgres:5433/drover"
SERVER = Server(
    version=150_003,
    version_told="15.3",
    standby=False,
    read_only=False,
    fsync=True,
    synchronous_commit="on",
    account="me",
    database="drover",
    schema="public",
    may_create=True,
    ahead_s=0.0,
    off_by_s=0.001,
)
LEASE = Lease("host:1:ab", 3, 4.2, datetime(2030, 1, 1, tzinfo=UTC))
DATABASE = DatabaseState(postgres_probe.Reach.OPEN, "", SERVER, Schema(latest="0006_unpublished"), (), LEASE)
LISTED = Answer(hub_probe.Reach.ANSWERED, 200, own=True)
DECLARED = (
    *(Declared("exchange", item.name, Found.SAME) for item in EXCHANGES),
    *(Declared("queue", item.name, Found.SAME, consumers=1) for item in QUEUES),
)
BROKER = BrokerState(rabbit_probe.Reach.OPEN, "", "3.13.2", DECLARED)


def by_name(checks: list[Check]) -> dict[str, Check]:
    """The checks by their names; every one that is not right has a remedy, and none quotes a password."""
    assert all(check.remedy for check in checks if check.level in (Level.WARNING, Level.FAULT))
    assert CANARY not in str(checks)
    return {check.name: check for check in checks}


def database(**changes: Any) -> dict[str, Check]:
    """The verdicts on a database that is right but for this."""
    return by_name(judge_database(msgspec.structs.replace(DATABASE, **changes), DSN, migrates_on_start=False))


def server(**changes: Any) -> dict[str, Check]:
    """The same, of the server."""
    return database(server=msgspec.structs.replace(SERVER, **changes))


def broker(**changes: Any) -> dict[str, Check]:
    """The verdicts on a broker that is right but for this."""
    return by_name(judge_broker(msgspec.structs.replace(BROKER, **changes), ACCOUNT))


def hub(own: Answer = LISTED, model: Answer = LISTED, outputs: tuple[str, ...] = ("video",)) -> dict[str, Check]:
    """The verdicts on a hub with these answers."""
    return by_name(judge_hub(HubState(((None, own),), model, outputs), f"https://u:{CANARY}@hub", "ltx"))


def test_what_is_right_is_ok() -> None:
    for checks in (database(), broker(), hub()):
        assert {check.level for check in checks.values()} == {Level.OK}


# -- the database -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [reach for reach in postgres_probe.Reach if reach is not postgres_probe.Reach.OPEN])
def test_a_database_that_is_not_open_is_one_fault(reach: postgres_probe.Reach) -> None:
    [check] = database(reach=reach, told="so it is", server=None).values()
    assert (check.level, "postgres:5433/drover" in check.found) == (Level.FAULT, True)


@pytest.mark.parametrize(
    ("changes", "name", "level", "says"),
    [
        ({"version": 130_012}, "database.connection", Level.FAULT, "14 or later"),
        ({"standby": True}, "database.writable", Level.FAULT, "primary"),
        ({"read_only": True}, "database.writable", Level.FAULT, "default_transaction_read_only"),
        ({"fsync": False}, "database.durable", Level.WARNING, "fsync"),
        ({"synchronous_commit": "off"}, "database.durable", Level.WARNING, "synchronous_commit"),
    ],
)
def test_a_server_that_will_not_do_is_told_with_the_remedy(
    changes: dict[str, Any], name: str, level: Level, says: str
) -> None:
    check = server(**changes)[name]
    assert (check.level, says in check.remedy) == (level, True)


def test_the_schema_is_held_against_this_versions() -> None:
    behind = database(schema=Schema(missing=("0007_x",)))["database.migrations"]
    assert (behind.level, "0007_x" in behind.found, "`drover migrate`" in behind.remedy) == (Level.FAULT, True, True)
    ahead = database(schema=Schema(unknown=("0007_x",)))["database.migrations"]
    assert (ahead.level, "newer" in ahead.found) == (Level.WARNING, True)
    without = database(schema=Schema(left_out=("0007_x",)))["database.migrations"]
    assert (without.level, "can do without" in without.found) == (Level.WARNING, True)
    changed = database(schema=Schema(changed=("0001_spine",)))["database.migrations"]
    assert (changed.level, "Restore" in changed.remedy) == (Level.FAULT, True)
    assert database(schema=None)["database.migrations"].level is Level.FAULT


def test_who_may_not_create_the_missing_tables_is_told_what_to_grant() -> None:
    without = msgspec.structs.replace(SERVER, may_create=False)
    check = database(schema=Schema(missing=("0007_x",)), server=without)["database.migrations"]
    assert "grant create on schema public to me" in check.remedy


def test_missing_privileges_are_told_by_table() -> None:
    check = database(denied=(("requests", "update"), ("requests", "delete")))["database.privileges"]
    assert (check.level, "update, delete on requests" in check.found) == (Level.FAULT, True)


@pytest.mark.parametrize(
    ("lease", "says"),
    [
        (None, "Nobody leads"),
        (Lease("h", 3, -12.0, None), "ran out 12 s ago"),
        (Lease("h", 3, 4.0, None), "does not hear the hub"),
    ],
)
def test_who_leads_is_told_and_who_does_not(lease: Lease | None, says: str) -> None:
    check = database(lease=lease)["database.leadership"]
    assert (check.level, says in check.found) == (Level.WARNING, True)


# -- the broker -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reach", "name", "says"),
    [
        (rabbit_probe.Reach.NO_ANSWER, "broker.connection", "Start RabbitMQ"),
        (rabbit_probe.Reach.LOGIN_REFUSED, "broker.login", "rabbitmqctl change_password 'me'"),
        (rabbit_probe.Reach.VHOST_REFUSED, "broker.vhost", "rabbitmqctl add_vhost 'shop'"),
    ],
)
def test_a_broker_that_is_not_open_is_one_fault(reach: rabbit_probe.Reach, name: str, says: str) -> None:
    [check] = broker(reach=reach, told="so it is").values()
    assert (check.name, check.level, says in check.remedy) == (name, Level.FAULT, True)


@pytest.mark.parametrize("found", [found for found in Found if found not in (Found.SAME, Found.REFUSED)])
def test_a_queue_that_is_not_as_wanted_is_a_fault_with_its_name(found: Found) -> None:
    declared = (*DECLARED[:-1], Declared("queue", QUEUES[-1].name, found, "told so"))
    checks = broker(declared=declared)
    [wrong] = [check for check in checks.values() if check.level is Level.FAULT]
    assert QUEUES[-1].name in wrong.found
    assert "broker.topology" not in checks or wrong.name == "broker.topology"


def test_missing_permissions_come_with_the_command_that_grants_them() -> None:
    check = broker(refusals=(Refusal("consume the queue q", "ACCESS_REFUSED"),))["broker.permissions"]
    assert (check.level, "consume the queue q" in check.found) == (Level.FAULT, True)
    assert "rabbitmqctl set_permissions -p 'shop' 'me' 'generation\\..*'" in check.remedy


def test_nobody_who_consumes_letters_and_unrouted_events_are_warnings() -> None:
    idle = tuple(msgspec.structs.replace(item, consumers=0, messages=3) for item in DECLARED)
    checks = broker(declared=idle)
    names = ("broker.consumers", "broker.quarantine", "broker.unrouted")
    assert [checks[name].level for name in names] == [Level.WARNING] * 3
    assert "3 request(s)" in checks["broker.consumers"].found


def test_a_broker_too_old_for_the_queues_is_a_fault() -> None:
    assert broker(version="3.9.29")["broker.connection"].level is Level.FAULT


# -- the hub ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [reach for reach in hub_probe.Reach if reach is not hub_probe.Reach.ANSWERED])
def test_a_hub_that_does_not_answer_is_a_fault_and_the_rest_is_not_checked(reach: hub_probe.Reach) -> None:
    checks = hub(Answer(reach, told="so it is"))
    assert (checks["hub.connection"].level, checks["hub.model"].level) == (Level.FAULT, Level.NOT_CHECKED)


@pytest.mark.parametrize(
    ("answer", "name", "says"),
    [
        (Answer(hub_probe.Reach.ANSWERED, 401, own=True), "hub.key", "OXEN_API_KEY"),
        (Answer(hub_probe.Reach.ANSWERED, 402), "hub.key", "Top the account up"),
        (Answer(hub_probe.Reach.ANSWERED, 403), "hub.key", "a key that may"),
        (Answer(hub_probe.Reach.ANSWERED, 404), "hub.connection", "Mend OXEN_BASE_URL"),
        (Answer(hub_probe.Reach.ANSWERED, 200), "hub.connection", "Mend OXEN_BASE_URL"),
        (Answer(hub_probe.Reach.ANSWERED, 301, location="https://x.y/"), "hub.connection", "where it leads"),
        (Answer(hub_probe.Reach.ANSWERED, 502), "hub.connection", "Nothing to mend here"),
    ],
)
def test_what_the_hub_answers_is_told_apart(answer: Answer, name: str, says: str) -> None:
    check = hub(answer)[name]
    assert (check.level, says in check.remedy) == (Level.FAULT, True)


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (Answer(hub_probe.Reach.ANSWERED, 404, own=True), ()),
        (Answer(hub_probe.Reach.ANSWERED, 503), ()),
        (LISTED, ("text",)),
    ],
)
def test_a_default_model_that_cannot_be_used_is_a_warning(model: Answer, outputs: tuple[str, ...]) -> None:
    assert hub(model=model, outputs=outputs)["hub.model"].level is Level.WARNING


# -- clocks -----------------------------------------------------------------------------------------------------------


def clocks(database: float | None, hub: float | None) -> dict[str, Check]:
    """The verdicts on clocks that are so much ahead of ours."""
    readings = [None if ahead is None else Reading(ahead, 0.5) for ahead in (database, hub)]
    return by_name(judge_clocks(*readings))


@pytest.mark.parametrize(
    ("database", "hub", "levels", "says"),
    [
        (0.1, -0.9, (Level.OK, Level.OK), ""),
        (0.0, 300.0, (Level.OK, Level.FAULT), "agrees with the database's: tell the hub's operators"),
        (-300.0, 0.0, (Level.FAULT, Level.OK), "database's machine"),
        (300.0, 301.0, (Level.FAULT, Level.FAULT), "this machine's clock"),
        (0.0, 20.0, (Level.OK, Level.WARNING), "hub's operators"),
        (None, 300.0, (Level.NOT_CHECKED, Level.FAULT), "when it is right, the hub's"),
    ],
)
def test_the_clock_that_is_odd_is_named(
    database: float | None, hub: float | None, levels: tuple[Level, Level], says: str
) -> None:
    checks = clocks(database, hub)
    assert (checks["clock.database"].level, checks["clock.hub"].level) == levels
    remedies = checks["clock.database"].remedy + checks["clock.hub"].remedy
    assert says in remedies or (says == "this machine's clock" and "NTP" in remedies)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be_read_are_faults_and_what_needs_no_key_is_looked_at_all_the_same() -> None:
    checks, settings, with_key = judge_settings({})
    assert (checks[0].level, with_key, settings is not None) == (Level.FAULT, False, True)
    assert "OXEN_API_KEY" in checks[0].remedy
    checks, settings, with_key = judge_settings({"OXEN_API_KEY": "k", "DROVER_AMQP_URL": f"http://u:{CANARY}@x"})
    assert (settings, with_key, CANARY in str(checks)) == (None, False, False)


def test_a_variable_that_nothing_reads_is_a_warning_with_what_was_meant() -> None:
    checks, _, _ = judge_settings({"OXEN_API_KEY": "k", "DROVER_AMPQ_URL": "x"})
    assert [(check.level, check.remedy) for check in checks[1:]] == [(Level.WARNING, "Did you mean DROVER_AMQP_URL?")]


def test_a_file_that_is_not_read_and_one_that_cannot_be_are_told() -> None:
    both = {"OXEN_API_KEY": "k", "OXEN_API_KEY_FILE": "/no/such/file"}
    checks, _, _ = judge_settings(both)
    assert checks[1:] == [
        Check(
            "settings",
            Level.WARNING,
            "OXEN_API_KEY_FILE is not read, since OXEN_API_KEY is set.",
            "Unset one of the two.",
        )
    ]
    checks, _, _ = judge_settings({"OXEN_API_KEY": "k", "DROVER_AMQP_URL_FILE": "/no/such/file"})
    assert (checks[0].level, "DROVER_AMQP_URL alone in it" in checks[0].remedy) == (Level.FAULT, True)


@pytest.mark.parametrize(
    ("variables", "warned"),
    [
        ({"DROVER_HTTP_HOST": "10.0.0.7"}, True),
        ({"DROVER_HTTP_HOST": "10.0.0.7", "DROVER_API_TOKENS": "t"}, False),
        ({"OXEN_BASE_URL": "http://hub.example.org"}, True),
        ({"OXEN_BASE_URL": "http://127.0.0.1:8100"}, False),
        ({"DROVER_AMQP_URL": "amqp://u:p@mq.example.org/"}, True),
        ({"DROVER_AMQP_URL": "amqps://u:p@mq.example.org/"}, False),
        ({"DROVER_AMQP_URL": "amqps://u:p@mq.example.org/?no_verify_ssl=1"}, True),
        ({"DROVER_DATABASE_URL": "postgresql://u:p@db.example.org/x"}, True),
        ({"DROVER_DATABASE_URL": "postgresql://u:p@db.example.org/x?sslmode=require"}, True),
        ({"DROVER_DATABASE_URL": "postgresql://u:p@db.example.org/x?sslmode=verify-full"}, False),
        ({"DROVER_DATABASE_URL": "postgresql:///x?host=db1.example.org,db2.example.org"}, True),
        ({"DROVER_DATABASE_URL": "postgresql:///x?host=/var/run/postgresql"}, False),
        ({"DROVER_DATABASE_URL": "postgresql://u:p@postgres/x"}, False),
        ({"DROVER_DATABASE_URL": "postgresql://u:p@10.0.0.7/x"}, False),
        ({"DROVER_AMQP_URL": "amqp://u:p@rabbit/"}, False),
        ({"DROVER_AMQP_URL": "amqp://u:p@10.0.0.7/"}, False),
    ],
)
def test_what_is_set_at_a_risk_is_a_warning(variables: dict[str, str], warned: bool) -> None:
    checks, _, _ = judge_settings({"OXEN_API_KEY": "k", **variables})
    assert any(check.level is Level.WARNING for check in checks) is warned
