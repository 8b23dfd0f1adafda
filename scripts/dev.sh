#!/usr/bin/env bash
# Serves for development: migrates the database, creates the first administrator, and starts Flask's
# server, which reloads changed code and opens its debugger where a request fails.
set -euo pipefail
cd "$(dirname "$0")/.."

export FLASK_DEBUG=1 LOG_FORMAT="${LOG_FORMAT:-console}"
.venv/bin/flask db upgrade
.venv/bin/flask users create-admin --if-none --generate --username admin --email admin@example.com
exec .venv/bin/flask run --debug --host 127.0.0.1 --port "${PORT:-8000}"
