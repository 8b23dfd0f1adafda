#!/usr/bin/env bash
# Makes the files that docker-compose.yml mounts as secrets; one that is there stays as it is.
# Usage: scripts/make_secrets.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-secrets}

mkdir -p "$folder"
# Only the folder keeps others out: the files are mounted with the owner and mode they have here,
# and in the containers other users have to read them.
chmod 700 "$folder"
for name in database_password encryption_key grafana_password jwt_secret_key metrics_token \
    password_pepper rabbitmq_password redis_password secret_key; do
    [[ -s $folder/$name ]] && continue
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
    chmod 444 "$folder/$name"
    echo "Made $folder/$name"
done
