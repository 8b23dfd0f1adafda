#!/usr/bin/env bash
# Creates the files that docker-compose.yml mounts as secrets; keeps existing ones.
# Usage: scripts/make_secrets.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-secrets}

mkdir -p "$folder"
# Only the folder keeps others out: the files are mounted with the owner and mode they have here,
# and in the containers other users have to read them.
chmod 700 "$folder"
for name in database_admin_password database_owner_password database_password encryption_key \
    grafana_password metrics_token password_pepper rabbitmq_password redis_password secret_key; do
    [[ -s $folder/$name ]] && continue
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
    chmod 444 "$folder/$name"
    echo "Created $folder/$name"
done

# The key that signs access tokens (ES256); other services verify with its public half.
key=$folder/jwt_private_key
if [[ ! -s $key ]]; then
    if ! command -v openssl >/dev/null; then
        echo "openssl is needed to make $key. Install it and run this again." >&2
        exit 1
    fi
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$key.draft" 2>/dev/null
    chmod 444 "$key.draft"
    mv "$key.draft" "$key"
    echo "Created $key"
fi
