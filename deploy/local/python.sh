#!/bin/sh
# Prints a Python of at least 3.11; installs the distribution's where there is none and that is allowed.
set -eu

find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

find_python && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing python3, python3-venv (apt) ..." >&2
    {
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 python3-venv
    } </dev/null >/dev/null || true
    find_python && exit 0
fi
echo "Python 3.11 or newer is needed and not here: install it (Debian 12 or newer: sudo apt-get install python3 python3-venv)" >&2
exit 1
