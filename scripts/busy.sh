#!/usr/bin/env bash
# Runs a command while four processes keep the processors busy.
# Usage: scripts/busy.sh COMMAND…
set -euo pipefail

loops=()
trap 'kill "${loops[@]}"' EXIT
for _ in 1 2 3 4; do
    (while :; do :; done) &
    loops+=("$!")
done
"$@"
