#!/bin/sh
# Starts Redis as a master, or as a replica of the host in MASTER. Sentinels change the roles later.
set -eu
password=$(cat "${SECRETS_FOLDER:-/run/secrets}/redis_password")
file=${FOLDER:-/tmp}/redis.conf
umask 077
# Stores nothing on disk. A master without a replica rejects writes, so that processes that still
# reach a former master read the database.
cat >"$file" <<END
port ${PORT:-6379}
dir ${FOLDER:-/tmp}
requirepass $password
masterauth $password
replica-announce-ip ${NAME:-$(hostname)}
min-replicas-to-write 1
min-replicas-max-lag 2
maxmemory 256mb
maxmemory-policy noeviction
save ""
appendonly no
END
if [ -n "${MASTER:-}" ]; then
    echo "replicaof $MASTER ${MASTER_PORT:-6379}" >>"$file"
fi
exec redis-server "$file"
