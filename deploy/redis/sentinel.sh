#!/bin/sh
# Starts a Sentinel. Its file is kept, because it stores which server is the master now.
set -eu
secrets=${SECRETS_FOLDER:-/run/secrets}
own_password=$(cat "$secrets/redis_sentinel_password")
folder=${FOLDER:-/data}
file=$folder/sentinel.conf
umask 077
if [ ! -s "$file" ]; then
    cat >"$file.draft" <<END
port ${PORT:-26379}
dir $folder
requirepass $own_password
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip ${NAME:-$(hostname)}
sentinel sentinel-pass $own_password
sentinel monitor mymaster ${MASTER:-redis} ${MASTER_PORT:-6379} 2
sentinel auth-pass mymaster $(cat "$secrets/redis_password")
sentinel down-after-milliseconds mymaster 2000
sentinel failover-timeout mymaster 10000
END
    mv "$file.draft" "$file"
fi
exec redis-server "$file" --sentinel
