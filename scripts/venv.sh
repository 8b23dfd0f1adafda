#!/usr/bin/env bash
# Creates the virtual environment if none works, and installs requirements into it.
# Usage: scripts/venv.sh STAMP REQUIREMENTS…   make compares the age of the stamp.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$1
shift

is_recent_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if is_recent_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed${PYTHON:+, and PYTHON=$PYTHON is not that}." >&2
    echo "Install it, or name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "This Python cannot make virtual environments." >&2
        echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "Making the virtual environment $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

echo "Installing $*"
"$venv/bin/python" -m pip install --quiet "${@/#/--requirement=}"
if [[ $stamp == */.development ]]; then
    # Tests, benchmarks and trials use the client package from its sources.
    libraries=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PWD/client/src" >"$libraries/userapi_client_sources.pth"
fi
# Where PYTHONDONTWRITEBYTECODE is set, each command would compile the service again.
"$venv/bin/python" -m compileall -q userapi
touch "$stamp"
