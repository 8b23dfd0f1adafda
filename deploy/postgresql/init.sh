#!/bin/sh
# Makes the roles when the image of PostgreSQL makes the database, once, before anybody connects.
set -eu
folder=${SECRETS_FOLDER:-/run/secrets}
OWNER_PASSWORD=$(cat "$folder/database_owner_password")
SERVICE_PASSWORD=$(cat "$folder/database_password")
export OWNER_PASSWORD SERVICE_PASSWORD
# Through a file and the environment: arguments can be seen from outside.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" \
    --dbname="$POSTGRES_DB" --file="${ROLES_FILE:-/etc/userapi/roles.sql}"
