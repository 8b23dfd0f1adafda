#!/usr/bin/env bash
# Serves: brings the database up to date, makes the first administrator, becomes Gunicorn.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/flask db upgrade
.venv/bin/flask users create-admin --if-none --generate --username admin --email admin@example.com
exec .venv/bin/gunicorn -c gunicorn.conf.py wsgi:app
