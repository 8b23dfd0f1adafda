#!/usr/bin/env bash
# Creates the files that docker-compose.yml and docker-compose.ha.yml mount as secrets; keeps existing
# passwords and keys.
# Usage: scripts/make_secrets.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-secrets}

mkdir -p "$folder"
# Only the folder keeps others out: the files are mounted with the owner and mode they have here,
# and in the containers other users have to read them.
chmod 700 "$folder"
for name in database_admin_password database_owner_password database_password \
    database_replication_password encryption_key grafana_password metrics_token password_pepper \
    rabbitmq_cookie rabbitmq_password redis_password redis_sentinel_password secret_key; do
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

# The addresses of the servers in docker-compose.ha.yml, with the present passwords.
write() {
    rm -f "$folder/$1"
    printf '%s' "$2" >"$folder/$1"
    chmod 444 "$folder/$1"
}
databases=postgresql:5432,postgresql2:5432,postgresql3:5432/userapi
write database_url "postgresql://userapi:$(<"$folder/database_password")@$databases"
write database_owner_url "postgresql://userapi_owner:$(<"$folder/database_owner_password")@$databases"
write redis_url "redis+sentinel://:$(<"$folder/redis_password")@sentinel1:26379,sentinel2:26379,sentinel3:26379/mymaster/0"
write rabbitmq_url "amqp://userapi:$(<"$folder/rabbitmq_password")@rabbitmq:5672,rabbitmq2:5672,rabbitmq3:5672/"
