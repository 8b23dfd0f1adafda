#!/usr/bin/env bash
# Serves: brings the database up to date, makes the first administrator, becomes Gunicorn.
set -euo pipefail
cd "$(dirname "$0")/.."

exec .venv/bin/python -m scripts.serve
