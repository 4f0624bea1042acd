#!/usr/bin/env python3
"""Writes the secrets of deploy/compose.yaml: random passwords, and the stand-in hub's key. What is there stays.

For the real hub, put its key into deploy/secrets/oxen_api_key, and set OXEN_BASE_URL=https://hub.oxen.ai.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.local.drover import API_KEY

FOLDER = Path(__file__).resolve().parents[1] / "secrets"
USER = "drover"


def write(folder: Path) -> list[str]:
    """Every file that is missing; their names.

    The folder is its owner's alone, and the files in it may be read by everybody: a container is shown a file as it is
    here, under the account of whoever made it, which is not the container's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    written: list[str] = []

    def kept(name: str, text: str) -> str:
        path = folder / name
        if not path.exists():
            path.write_text(f"{text}\n")
            path.chmod(0o444)
            written.append(name)
        return path.read_text().strip()

    postgres = kept("postgres_password", secrets.token_hex(24))
    kept("database_url", f"postgresql://{USER}:{postgres}@postgres:5432/drover")
    rabbit = kept("rabbitmq.conf", f"default_user = {USER}\ndefault_pass = {secrets.token_hex(24)}").split()[-1]
    kept("amqp_url", f"amqp://{USER}:{rabbit}@rabbitmq:5672/")
    kept("api_tokens", secrets.token_hex(24))
    kept("oxen_api_key", API_KEY)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(prog="compose_secrets.py", description=__doc__)
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder (default: %(default)s)")
    options = parser.parse_args()
    written = write(options.to)
    print(f"written in {options.to}: {', '.join(written)}" if written else f"everything is in {options.to} already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
