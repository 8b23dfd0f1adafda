#!/usr/bin/env bash
# Removes what tools have made, the virtual environment too. Data in instance/ stay.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
    build htmlcov
find . -name __pycache__ -type d -prune -exec rm -rf {} +
