#!/usr/bin/env bash
# Writes the modules of the client package that are generated, and formats them.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

.venv/bin/python -m scripts.openapi >"$scratch/openapi.json"
.venv/bin/python client/scripts/generate_models.py "$scratch/openapi.json"
.venv/bin/python client/scripts/generate_synchronous.py
.venv/bin/ruff check --fix --quiet client/src
.venv/bin/ruff format --quiet client/src
