#!/usr/bin/env bash
# Serves: brings the database up to date, makes the first administrator, becomes Gunicorn.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/flask db upgrade
.venv/bin/flask users create-admin --if-none --generate --username admin --email admin@example.com
echo "Pages at http://${BIND:-127.0.0.1:8000}/console/, the API to try at http://${BIND:-127.0.0.1:8000}/docs"
exec .venv/bin/gunicorn -c gunicorn.conf.py wsgi:app
