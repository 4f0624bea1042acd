"""The demo: one generation played through, from the message on the bus to the MP4 on disk, against the stand-in hub."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local.drover import API_KEY, SandboxServer, ServiceProcess, command
from deploy.local.errors import StackError
from deploy.local.ports import choose
from deploy.local.stack import AMQP_URL, DATABASE_URL, REPOSITORY, Stack

VENV = REPOSITORY / ".venv"
NAME = "drover_demo"  # database and virtual host
PROMPT = "a drover leads longhorn cattle across a shallow river at dawn, wide shot"
SUBMIT_TIMEOUT_S = 120
DRAIN_S = 35


def fresh_place(stack: Stack) -> dict[str, str]:
    """A database and a virtual host of the demo's own.

    A `drover serve` that the person runs on the same servers, maybe with a real key, must not see the demo's request.
    """
    place = {AMQP_URL: stack.given_amqp_url or "", DATABASE_URL: stack.given_database_url or ""}
    if not place[AMQP_URL]:
        stack.rabbit.drop_vhost(NAME)
        stack.rabbit.create_vhost(NAME)
        place[AMQP_URL] = stack.rabbit.vhost_url(NAME)
    if not place[DATABASE_URL]:
        stack.postgres.drop_database(NAME)
        stack.postgres.create_database(NAME)
        place[DATABASE_URL] = stack.postgres.database_url(NAME)
    return place


def settings(place: dict[str, str], sandbox_url: str) -> dict[str, str]:
    """The environment of the service: none of the person's own settings, so that the demo is the same everywhere."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DROVER_", "OXEN_"))}
    return inherited | place | {"OXEN_BASE_URL": sandbox_url, "OXEN_API_KEY": API_KEY}


@contextlib.contextmanager
def running(stack: Stack) -> Iterator[dict[str, str]]:
    """The sandbox and the service, for as long as the demo takes; yields the environment for further commands."""
    ports = choose(["sandbox", "service"], {})
    sandbox = SandboxServer(VENV, ports["sandbox"], state=stack.home, name="demo-sandbox")
    service = ServiceProcess(VENV, ports["service"], state=stack.home, name="demo-service")
    for process in (service, sandbox):  # of a demo that was killed
        process.stop()
    try:
        print("starting the sandbox and the service ...", flush=True)
        sandbox.start("--delay", "2")
        env = settings(fresh_place(stack), sandbox.url)
        service.start(env)
        yield env | {"DROVER_HTTP_PORT": str(service.port)}
    finally:
        service.stop(DRAIN_S)
        sandbox.stop()


def play(stack: Stack, folder: Path) -> Path:
    """Submit a request, wait for its end, and return the file that came out."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    with running(stack) as env:
        argv = [command(VENV), "submit", "--prompt", PROMPT, "--wait", "--download", str(folder)]
        print(f"$ drover submit --prompt '{PROMPT}' --wait --download {folder}", flush=True)
        try:
            done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, timeout=SUBMIT_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise StackError(
                f"the generation did not end within {SUBMIT_TIMEOUT_S} s: see {stack.home / 'log' / 'demo-service.log'}"
            ) from None
    if done.returncode != 0:
        raise StackError(f"`drover submit` ended with {done.returncode}: see {stack.home / 'log' / 'demo-service.log'}")
    videos = [path for path in folder.rglob("*.mp4") if path.stat().st_mtime >= began - 1 and path.stat().st_size > 0]
    if not videos:
        raise StackError(f"the generation ended, but no MP4 is in {folder}")
    return max(videos, key=lambda path: path.stat().st_mtime)


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".local", help="folder of the local stack")
    options = parser.parse_args()
    try:
        stack = Stack(options.home)
        print("starting Postgres and RabbitMQ ...", flush=True)
        stack.up()
        with (stack.home / "demo.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            video = play(stack, stack.home / "demo")
    except (StackError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"done: {video} ({video.stat().st_size:,} bytes)")
    print("Postgres and RabbitMQ stay up; `make down` stops them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
