#!/usr/bin/env python3
"""The container's health check: exit code 0 when the process answers 200, else 1 and why.

`healthcheck.py [PORT [PATH]]`; by default the port of DROVER_HTTP_PORT, and /healthz. Needs the standard library alone.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence

TIMEOUT_S = 4.0  # less than the image allows for the whole check, so that this one tells why
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - the addresses that nobody can call


def fault(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """What is wrong; None when nothing is."""
    port = arguments[0] if arguments else environment.get("DROVER_HTTP_PORT") or "8080"
    path = arguments[1] if len(arguments) > 1 else "/healthz"
    host = environment.get("DROVER_HTTP_HOST", "")
    connection = http.client.HTTPConnection("127.0.0.1" if host in EVERYWHERE else host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{path} answered {status}"


if __name__ == "__main__":
    sys.exit(fault(sys.argv[1:], os.environ))  # a text goes to stderr, and the code is 1
