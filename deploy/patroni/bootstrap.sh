#!/bin/sh
# Creates the database and its roles. Patroni runs it once, on the first primary.
set -eu
createdb --username=postgres --encoding=UTF8 --template=template0 userapi
POSTGRES_USER=postgres POSTGRES_DB=userapi exec "${ROLES_SCRIPT:-/docker-entrypoint-initdb.d/init.sh}"
