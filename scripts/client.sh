#!/usr/bin/env bash
# Builds the client package and runs its examples where only the built wheel is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

.venv/bin/python -m build --no-isolation --outdir "$scratch/dist" client
.venv/bin/python -m venv "$scratch/venv"
wheel=$(echo "$scratch"/dist/*.whl)
# Gunicorn and uvicorn serve the examples; the package does not need them.
"$scratch/venv/bin/python" -m pip install --quiet --constraint requirements.txt \
    --constraint requirements-dev.txt "$wheel[django,drf,events,fastapi,flask]" gunicorn uvicorn
"$scratch/venv/bin/python" -m pip check
USERAPI_CLIENT_PYTHON=$scratch/venv/bin/python .venv/bin/pytest -m "" tests/client "$@"
ls -l "$scratch/dist"
