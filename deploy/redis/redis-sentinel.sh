#!/bin/sh
# One of three Sentinels. It writes what it learns into its configuration, which is made at the first start alone.
set -eu
umask 077
config=/var/lib/redis-state/sentinel.conf
replica_password=$(cat /run/secrets/redis-replica.password)

[ -s "$config" ] || cat > "$config" <<CONFIG
port $REDIS_PORT
dir /var/lib/redis-state
protected-mode no
aclfile /run/secrets/sentinel.acl
sentinel sentinel-user sentinel
sentinel sentinel-pass $replica_password
sentinel monitor headrace $REDIS_FIRST_MASTER 6379 2
sentinel auth-user headrace sentinel
sentinel auth-pass headrace $replica_password
sentinel down-after-milliseconds headrace 3000
sentinel failover-timeout headrace 10000
sentinel parallel-syncs headrace 2
CONFIG
exec redis-server "$config" --sentinel
