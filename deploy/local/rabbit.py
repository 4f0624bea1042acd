"""A private RabbitMQ: own node, cookie, epmd, ports and data, loopback only."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deploy.local.errors import StackError
from deploy.local.ports import LOOPBACK, accepts, speaks_amqp
from deploy.local.process import Daemon

NODE = "drover@localhost"
USER = PASSWORD = "guest"  # noqa: S105 - no secret: the broker lets it in from the loopback interface only
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 40

# /usr/sbin/rabbitmq-* is Debian's wrapper: it switches the account and drops the environment. These are the real ones.
FOLDERS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"))
EPMD_FOLDERS = (Path("/usr/lib/erlang"), Path("/usr/local/lib/erlang"), Path("/opt/erlang/lib/erlang"))

CONF = """\
listeners.tcp.default = {host}:{amqp}
management.tcp.ip = {host}
management.tcp.port = {management}
log.console = false
log.file.level = info
# A development machine's nearly full disk or memory must not block publishers without a word.
disk_free_limit.absolute = 50MB
"""


def find_binaries() -> Path | None:
    """The folder of rabbitmq-server and rabbitmqctl."""
    folders = list(FOLDERS)
    if found := shutil.which("rabbitmq-server"):
        folders.append(Path(found).resolve().parent)
    for folder in folders:
        if (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-defaults").exists():
            return folder
    return None


def find_epmd() -> Path | None:
    """Erlang's port mapper; it comes with Erlang, not always on the PATH."""
    if found := shutil.which("epmd"):
        return Path(found)
    return next((epmd for folder in EPMD_FOLDERS for epmd in sorted(folder.glob("erts-*/bin/epmd"))), None)


@dataclass(frozen=True)
class RabbitPorts:
    amqp: int
    management: int
    distribution: int
    epmd: int


class RabbitServer:
    """One node with everything it writes in `folder`.

    Nodes of one cluster have a `name` each, and in common the `cookie`, the epmd (its port, and `state`), and a `conf`
    that says who they are.
    """

    def __init__(
        self, folder: Path, ports: RabbitPorts, *, state: Path, name: str = NODE, cookie: str = "", conf: str = ""
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.name = name
        self._cookie = cookie
        self._conf = conf
        short = "rabbitmq" if name == NODE else name.partition("@")[0]
        self._node = Daemon("RabbitMQ", state / "run" / f"{short}.pid", state / "log" / f"{short}.log")
        self._epmd = Daemon("epmd", state / "run" / "epmd.pid", state / "log" / "epmd.log")

    @property
    def url(self) -> str:
        return self.vhost_url("/")

    def vhost_url(self, vhost: str) -> str:
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{USER}:{PASSWORD}@{LOOPBACK}:{self.ports.amqp}/{path}"

    @property
    def management_url(self) -> str:
        return f"http://{USER}:{PASSWORD}@{LOOPBACK}:{self.ports.management}"

    @property
    def pid(self) -> int | None:
        return self._node.pid

    def alive(self) -> bool:
        """Whether the node's process runs."""
        return self._node.alive()

    def answers(self) -> bool:
        """Whether both the broker and the management API answer."""
        return speaks_amqp(LOOPBACK, self.ports.amqp) and self.management("GET", "/api/overview") is not None

    def start(self) -> None:
        """Start it if it is down, and return when it answers."""
        if not self.alive():
            server = self._binaries() / "rabbitmq-server"
            self.start_epmd()
            self._node.start([str(server)], env=self._env(), cwd=self.folder)
        self._node.wait_ready(self.answers, timeout=START_TIMEOUT_S)

    def stop(self) -> bool:
        """A clean shutdown of the node, then of its epmd."""
        stopped = self._node.stop(timeout=STOP_TIMEOUT_S)
        return self._epmd.stop(timeout=5) or stopped

    def kill(self) -> None:
        """SIGKILL to the node, as a crash would; its epmd stays for the next start, or for `stop`."""
        self._node.kill()

    def management(self, method: str, path: str, body: object = None) -> object | None:
        """Call the management API; None when there is no good answer."""
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self.ports.management}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback
        try:
            with direct.open(request, timeout=10) as answer:
                parsed: object = json.loads(answer.read() or b"{}")
        except (OSError, ValueError):
            return None
        return parsed

    def create_vhost(self, name: str) -> None:
        """Create it, with all rights for the one user there is."""
        vhost = quote(name, safe="")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        if (
            self.management("PUT", f"/api/vhosts/{vhost}", {}) is None
            or self.management("PUT", f"/api/permissions/{vhost}/{USER}", everything) is None
        ):
            raise StackError(
                f"RabbitMQ could not create the virtual host {name}: see the logs in {self.folder / 'log'}"
            )

    def drop_vhost(self, name: str) -> None:
        self.management("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """rabbitmqctl against this node."""
        return subprocess.run(
            [self._binaries() / "rabbitmqctl", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._env(),
            cwd=self.folder,
        )

    @staticmethod
    def _binaries() -> Path:
        binaries = find_binaries()
        if binaries is None:
            raise StackError(
                "RabbitMQ is not installed: install it (Debian, Ubuntu: `sudo apt-get install rabbitmq-server`), "
                "or name a running broker in DROVER_AMQP_URL"
            )
        return binaries

    def start_epmd(self) -> None:
        """Started here since the one that Erlang would start itself leaves no pid file and listens everywhere."""
        self._write_files()
        if self._epmd.alive():
            return
        epmd = find_epmd()
        if epmd is None:
            raise StackError(
                "Erlang's epmd is missing: install Erlang (Debian, Ubuntu: `sudo apt-get install erlang-base`)"
            )
        argv = [str(epmd), "-port", str(self.ports.epmd), "-address", LOOPBACK]
        self._epmd.start(argv, env=self._env(), cwd=self.folder)
        self._epmd.wait_ready(lambda: accepts(LOOPBACK, self.ports.epmd), timeout=10)

    def _write_files(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # messages are in it
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._cookie or secrets.token_hex(20))
            cookie.chmod(0o400)
        settings = CONF.format(host=LOOPBACK, amqp=self.ports.amqp, management=self.ports.management)
        (self.folder / "rabbitmq.conf").write_text(settings + self._conf)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def _env(self) -> dict[str, str]:
        """The environment that makes the node private; the person's own settings of these kinds are left out."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        folder = str(self.folder)
        return inherited | {
            "HOME": f"{folder}/home",
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script then becomes the node: one pid, signals arrive
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.ports.amqp),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_PID_FILE": f"{folder}/node.pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
