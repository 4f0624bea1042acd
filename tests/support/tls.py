"""Certificates of a private CA, and servers that show them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from deploy.local.ports import LOOPBACK, choose
from deploy.local.postgres import PostgresServer, server_account
from deploy.local.rabbit import RabbitServer
from tests.support.private import private_postgres, private_rabbit

# The first line that fits decides: a user who must show a certificate, and everybody else by password; all over TLS.
HBA = """\
hostssl all mutual 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl all all 127.0.0.1/32 scram-sha-256
"""
MUTUAL = "mutual"


class Authority:
    """A CA with its files in a folder: its own certificate, that of a server, that of a client."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir()
        ca = trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(self.ca)
        self.server, self.server_key = _issued(ca, folder / "server", *(names or (LOOPBACK,)))
        self.client, self.client_key = _issued(ca, folder / "client", "drover@example.org")


def _issued(ca: trustme.CA, path: Path, *names: str) -> tuple[Path, Path]:
    issued = ca.issue_cert(*names)
    certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


@contextmanager
def tls_rabbit(authority: Authority, *, mutual: bool = False) -> Iterator[tuple[RabbitServer, str]]:
    """A broker with a TLS listener beside the plain one, and its amqps:// URL without parameters."""
    port = choose(("amqps",), {})["amqps"]
    asked = str(mutual).lower()
    extra = f"""\
listeners.ssl.default = {LOOPBACK}:{port}
ssl_options.cacertfile = {authority.ca}
ssl_options.certfile = {authority.server}
ssl_options.keyfile = {authority.server_key}
ssl_options.verify = {"verify_peer" if mutual else "verify_none"}
ssl_options.fail_if_no_peer_cert = {asked}
"""
    with private_rabbit(extra) as server:
        yield server, f"amqps://guest:guest@{LOOPBACK}:{port}/"


@contextmanager
def tls_postgres(authority: Authority) -> Iterator[PostgresServer]:
    """A database server that lets nobody in without TLS, and the user `mutual` not without a certificate either."""
    with private_postgres() as server:
        server.stop()
        settings = ["ssl = on"]
        for setting, file in (
            ("ssl_ca_file", authority.ca),
            ("ssl_cert_file", authority.server),
            ("ssl_key_file", authority.server_key),
        ):
            _give(server.data / file.name, file.read_bytes())
            settings.append(f"{setting} = '{file.name}'")
        with (server.data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(settings) + "\n")
        _give(server.data / "pg_hba.conf", HBA.encode())
        server.start()
        yield server


def _give(path: Path, content: bytes) -> None:
    """To the account that the server runs as, which must own its key."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    if account := server_account():
        os.chown(path, *account)
