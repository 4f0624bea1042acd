"""A real PgBouncer before a database."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from deploy.local.ports import LOOPBACK, accepts, choose
from deploy.local.process import Daemon

CONF = """\
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = {loopback}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 30
ignore_startup_parameters = {ignored}
"""
UNPRIVILEGED = "nobody"  # it does not run as root


@contextmanager
def pooled(database_url: str, mode: str, *, ignored: str = "") -> Iterator[str]:
    """Its URL, to the same database, while it runs."""
    parts = urlsplit(database_url)
    folder = Path(tempfile.mkdtemp(prefix="drover-pooler-"))
    port = choose(("pooler",), {})["pooler"]
    conf = CONF.format(
        host=parts.hostname,
        server_port=parts.port,
        loopback=LOOPBACK,
        port=port,
        folder=folder,
        mode=mode,
        ignored=ignored,
    )
    (folder / "pgbouncer.ini").write_text(conf)
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    account = None
    if os.geteuid() == 0:
        found = pwd.getpwnam(UNPRIVILEGED)
        account = (found.pw_uid, found.pw_gid)
        for path in (folder, *folder.iterdir()):
            os.chown(path, *account)
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program is not None, "PgBouncer is not installed: `sudo apt-get install pgbouncer`"
    server = Daemon("PgBouncer", folder / "pid" / "pgbouncer.pid", folder / "log" / "pgbouncer.log")
    try:
        server.start([program, str(folder / "pgbouncer.ini")], env=os.environ, cwd=folder, account=account)
        server.wait_ready(lambda: accepts(LOOPBACK, port), timeout=10)
        credentials = parts.netloc.rpartition("@")[0]
        yield urlunsplit(parts._replace(netloc=f"{credentials}@{LOOPBACK}:{port}"))
    finally:
        server.stop(first=signal.SIGQUIT, timeout=5)
        shutil.rmtree(folder)
