#!/usr/bin/env bash
# Removes generated files and the virtual environment. Keeps the data in instance/.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
    build htmlcov
find . -name __pycache__ -type d -prune -exec rm -rf {} +
