#!/bin/sh
# Starts Patroni with the passwords of the mounted secrets. The name of the node is that of the host.
set -eu
folder=${SECRETS_FOLDER:-/run/secrets}
name=$(hostname)
export PATRONI_NAME="$name"
export PATRONI_POSTGRESQL_CONNECT_ADDRESS="${PATRONI_POSTGRESQL_CONNECT_ADDRESS:-$name:5432}"
export PATRONI_RESTAPI_CONNECT_ADDRESS="${PATRONI_RESTAPI_CONNECT_ADDRESS:-$name:8008}"
PATRONI_SUPERUSER_PASSWORD=$(cat "$folder/database_admin_password")
PATRONI_REPLICATION_PASSWORD=$(cat "$folder/database_replication_password")
PATRONI_RESTAPI_PASSWORD=$PATRONI_SUPERUSER_PASSWORD
export PATRONI_SUPERUSER_PASSWORD PATRONI_REPLICATION_PASSWORD PATRONI_RESTAPI_PASSWORD
export PATRONI_SUPERUSER_USERNAME=postgres PATRONI_REPLICATION_USERNAME=replicator
export PATRONI_RESTAPI_USERNAME=patroni
exec "${PATRONI:-/opt/patroni/bin/patroni}" "${PATRONI_FILE:-/etc/patroni/patroni.yml}"
