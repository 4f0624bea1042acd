"""TLS to the broker, the database and the hub: certificates are verified, and what is wrong with one is told with what
mends it. Real servers, real certificates of a private CA."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local.postgres import PostgresServer
from service.domain.errors import BrokerUnavailableError, ConfigurationError, DatabaseUnavailableError, DroverError
from service.postgres.database import Database
from service.rabbit.connection import Link
from service.sandbox import Sandbox
from tests.support.command import drover
from tests.support.private import private_postgres
from tests.support.replica import Process, environment
from tests.support.tls import MUTUAL, Authority, tls_postgres, tls_rabbit

pytestmark = pytest.mark.asyncio
PASSWORD = "tr0ub4dor"
UNTRUSTED, OTHER_HOST = "a CA that is not trusted here", "for another host name"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates are, and a file that holds none."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "no-certificate.pem").write_text("x")
    return folder


@pytest.fixture(scope="module")
def ca(home: Path) -> Authority:
    """The CA that everybody here should trust."""
    return Authority(home / "ours")


@pytest.fixture(scope="module")
def stranger(home: Path) -> Authority:
    """Another one."""
    return Authority(home / "theirs")


@pytest.fixture(scope="module")
def plain_and_tls(ca: Authority) -> Iterator[tuple[str, str]]:
    """A broker's two URLs."""
    with tls_rabbit(ca) as (server, url):
        yield server.url, url


@pytest.fixture(scope="module")
def rabbit(plain_and_tls: tuple[str, str]) -> str:
    """amqps:// without parameters."""
    return plain_and_tls[1]


@pytest.fixture(scope="module")
def strict_rabbit(ca: Authority) -> Iterator[str]:
    """A broker that wants client certificates."""
    with tls_rabbit(ca, mutual=True) as (_, url):
        yield url


@pytest.fixture(scope="module")
def postgres(ca: Authority) -> Iterator[PostgresServer]:
    """A database server that lets nobody in without TLS."""
    with tls_postgres(ca) as server:
        yield server


@asynccontextmanager
async def behind_tls(authority: Authority, url: str) -> AsyncIterator[str]:
    """A server behind a proxy that ends TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server, authority.server_key)
    target = urlsplit(url)

    async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(flow(reader, back), flow(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def told_by_broker(url: str) -> str:
    """Why there is no connection."""
    with pytest.raises(DroverError) as caught:
        await Link.open(url, "test")
    assert "guest:" not in str(caught.value)
    return str(caught.value)


async def told_by_database(url: str) -> str:
    """The same."""
    database = Database(url, size=1, timeout_s=5)
    with pytest.raises(DroverError) as caught:
        await database.open()
    assert str(urlsplit(url).password) not in str(caught.value)
    return str(caught.value)


async def connects(url: str) -> bool:
    """Whether the service can use this broker, or this database."""
    if url.startswith("amqp"):
        link = await Link.open(url, "test")
        await link.channel(confirms=True)
        await link.close()
    else:
        database = Database(url, size=1)
        await database.open()
        await database.check_writable()
        await database.close()
    return True


def verified(server: PostgresServer, authority: Authority) -> str:
    """As an operator writes it."""
    return f"{server.url}?sslmode=verify-full&sslrootcert={authority.ca}"


# -- it works ---------------------------------------------------------------------------------------------------------


async def test_a_generation_goes_through_with_every_connection_verified_by_a_private_ca(
    ca: Authority, rabbit: str, postgres: PostgresServer, hub: Sandbox
) -> None:
    amqp_url = f"{rabbit}?cafile={ca.ca}"
    async with behind_tls(ca, hub.url) as hub_url:
        variables = environment(amqp_url, verified(postgres, ca), hub_url, SSL_CERT_FILE=str(ca.ca))
        async with Process(variables) as service:
            await service.ready()
            code, out, err = await drover("submit", "--prompt", "x", "--wait", "--json", DROVER_AMQP_URL=amqp_url)
            examined, checks, _ = await drover("doctor", "--json", **variables)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["type"] == "drover.generation.succeeded.v1"
    assert (examined, {check["level"] for check in json.loads(checks)["checks"]}) == (0, {"ok"})


async def test_client_certificates_work_for_both(
    ca: Authority, stranger: Authority, strict_rabbit: str, postgres: PostgresServer
) -> None:
    assert await connects(f"{strict_rabbit}?cafile={ca.ca}&certfile={ca.client}&keyfile={ca.client_key}")
    for url in (
        f"{strict_rabbit}?cafile={ca.ca}",
        f"{strict_rabbit}?cafile={ca.ca}&certfile={stranger.client}&keyfile={stranger.client_key}",
    ):
        told = await told_by_broker(url)
        assert "certfile= and keyfile=" in told, told
    owner = await asyncpg.connect(verified(postgres, ca))
    await owner.execute(f"create role {MUTUAL} login superuser password '{PASSWORD}'")
    await owner.close()
    as_mutual = verified(postgres, ca).replace(f"//drover:{postgres.password}@", f"//{MUTUAL}:{PASSWORD}@")
    assert await connects(f"{as_mutual}&sslcert={ca.client}&sslkey={ca.client_key}")
    assert "sslcert= and sslkey=" in await told_by_database(as_mutual)


# -- it is verified ---------------------------------------------------------------------------------------------------


async def test_amqps_without_parameters_verifies_against_the_systems_store(ca: Authority, rabbit: str) -> None:
    assert UNTRUSTED in await told_by_broker(rabbit)
    code, _, err = await drover("topology", DROVER_AMQP_URL=rabbit, SSL_CERT_FILE=str(ca.ca))
    assert (code, err) == (0, "")


async def test_asyncpgs_default_encrypts_and_does_not_verify(postgres: PostgresServer) -> None:
    """As libpq's does, so the documentation says, and `drover doctor` warns."""
    assert await connects(postgres.url)


async def test_a_brokers_certificate_that_is_wrong_is_refused_with_what_to_do(
    ca: Authority, stranger: Authority, rabbit: str, plain_and_tls: tuple[str, str], home: Path
) -> None:
    told = await told_by_broker(f"{rabbit}?cafile={stranger.ca}")
    assert (UNTRUSTED in told, "cafile=" in told) == (True, True), told
    told = await told_by_broker(f"{rabbit.replace('127.0.0.1', 'localhost')}?cafile={ca.ca}")
    assert OTHER_HOST in told
    told = await told_by_broker(rabbit.replace("amqps:", "amqp:"))
    assert "amqps:// for a TLS port" in told
    told = await told_by_broker(plain_and_tls[0].replace("amqp:", "amqps:"))
    assert "does not speak TLS" in told
    told = await told_by_broker(f"{rabbit}?cafile={home / 'no-certificate.pem'}")
    assert "does not hold what it should" in told
    with pytest.raises(ConfigurationError, match="keyfile= of DROVER_AMQP_URL names cannot be read"):
        await Link.open(f"{rabbit}?cafile={ca.ca}&certfile={ca.client}&keyfile={home}/absent", "test")
    with pytest.raises(BrokerUnavailableError):
        await Link.open(rabbit, "test")


async def test_a_databases_certificate_that_is_wrong_is_refused_with_what_to_do(
    ca: Authority, stranger: Authority, postgres: PostgresServer, home: Path
) -> None:
    told = await told_by_database(verified(postgres, stranger))
    assert (UNTRUSTED in told, "sslrootcert=" in told) == (True, True), told
    told = await told_by_database(verified(postgres, ca).replace("127.0.0.1", "localhost"))
    assert OTHER_HOST in told
    told = await told_by_database(f"{postgres.url}?sslmode=disable")
    assert "pg_hba.conf wants TLS, sslmode=verify-full" in told
    told = await told_by_database(f"{postgres.url}?sslmode=verify-full&sslrootcert={home / 'no-certificate.pem'}")
    assert "does not hold what it should" in told
    with pytest.raises(ConfigurationError, match="sslrootcert= of DROVER_DATABASE_URL names cannot be read"):
        await Database(f"{postgres.url}?sslmode=verify-full&sslrootcert=system").open()
    with pytest.raises(ConfigurationError, match="sslmode wants a CA"):
        await Database(f"{postgres.url}?sslmode=verify-full").open()
    with pytest.raises(DatabaseUnavailableError):
        await Database(verified(postgres, stranger)).open()


async def test_a_database_that_speaks_no_tls_is_told_when_tls_is_wanted(ca: Authority) -> None:
    with private_postgres() as server:
        assert "does not speak TLS" in await told_by_database(verified(server, ca))


async def test_a_replica_waits_for_a_certificate_to_be_mended_and_says_so(
    stranger: Authority, ca: Authority, rabbit: str, postgres: PostgresServer, hub: Sandbox
) -> None:
    """A renewed certificate needs no restart; nothing is sent to a server that is not the right one."""
    broker, database = f"{rabbit}?cafile={stranger.ca}", verified(postgres, stranger)
    async with Process(environment(broker, database, hub.url)) as service:
        assert UNTRUSTED in (await service.logged("database.not_reached"))["reason"]
    async with Process(environment(broker, verified(postgres, ca), hub.url)) as service:
        for line in ("consumer.not_connected", "bus.not_connected"):
            assert UNTRUSTED in (await service.logged(line))["reason"]
    async with behind_tls(ca, hub.url) as hub_url:
        variables = environment(f"{rabbit}?cafile={ca.ca}", verified(postgres, ca), hub_url)
        async with Process(variables) as service:
            assert "CERTIFICATE_VERIFY_FAILED" in (await service.logged("stream.lost"))["reason"]


async def test_doctor_names_each_of_the_faults_and_what_mends_it(
    ca: Authority, stranger: Authority, rabbit: str, postgres: PostgresServer, hub: Sandbox, home: Path
) -> None:
    async def faults(amqp_url: str, database_url: str, hub_url: str) -> dict[str, str]:
        _, out, err = await drover("doctor", "--json", **environment(amqp_url, database_url, hub_url))
        assert err == ""
        assert postgres.password not in out
        found = json.loads(out)["checks"]
        return {check["name"]: f"{check['found']} {check['remedy']}" for check in found if check["level"] == "fault"}

    async with behind_tls(ca, hub.url) as hub_url:
        told = await faults(f"{rabbit}?cafile={stranger.ca}", verified(postgres, stranger), hub_url)
    assert UNTRUSTED in told["broker.tls"]
    assert "cafile= in DROVER_AMQP_URL" in told["broker.tls"]
    assert UNTRUSTED in told["database.tls"]
    assert "SSL_CERT_FILE" in told["hub.connection"]
    told = await faults(f"{rabbit}?cafile={home}/absent", f"{postgres.url}?sslmode=disable", hub.url)
    assert "cafile= of DROVER_AMQP_URL names cannot be read" in told["broker.tls"]
    assert "sslmode=verify-full" in told["database.login"]
    told = await faults(rabbit.replace("amqps:", "amqp:"), verified(postgres, ca), hub.url)
    assert "amqps:// for TLS" in told["broker.connection"]
