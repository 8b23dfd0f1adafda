#!/usr/bin/env bash
# Serves: migrates the database, creates the first administrator, and runs Gunicorn.
set -euo pipefail
cd "$(dirname "$0")/.."

exec .venv/bin/python -m scripts.serve
