#!/usr/bin/env bash
# Runs every check, also after one has failed, so that one run shows everything to fix.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
check() {
    echo "== $1"
    ".venv/bin/$@" </dev/null || failed+=("$1")
}

check ruff format --check --diff --quiet .
check ruff check --quiet .
check mypy
check mypy --config-file client/pyproject.toml
check lint-imports --no-cache
check bandit --quiet --recursive --ini setup.cfg userapi client/src client/scripts scripts gunicorn.conf.py wsgi.py

if ((${#failed[@]})); then
    echo "Not clean: ${failed[*]}" >&2
    exit 1
fi
