#!/bin/sh
# Creates the roles once, when the PostgreSQL image creates the database, before any client connects.
set -eu
folder=${SECRETS_FOLDER:-/run/secrets}
OWNER_PASSWORD=$(cat "$folder/database_owner_password")
SERVICE_PASSWORD=$(cat "$folder/database_password")
export OWNER_PASSWORD SERVICE_PASSWORD
# Through a file and the environment: arguments are visible to other processes.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" \
    --dbname="$POSTGRES_DB" --file="${ROLES_FILE:-/etc/userapi/roles.sql}"
