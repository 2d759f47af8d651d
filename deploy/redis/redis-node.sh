#!/bin/sh
# A Redis that leads or follows as the Sentinels say. It asks them when it starts; where none answers (the very first
# start), REDIS_FIRST_MASTER leads.
set -eu
replica_password=$(cat /run/secrets/redis-replica.password)

master=$REDIS_FIRST_MASTER
for sentinel in $REDIS_SENTINELS; do
  told=$(REDISCLI_AUTH=$(cat /run/secrets/redis.password) timeout 3 redis-cli --user headrace -h "$sentinel" -p 26379 \
    sentinel get-master-addr-by-name headrace 2>/dev/null | head -n 1) || continue
  case $told in [0-9]*.*.*.*) master=$told; break ;; esac
done
[ "$master" = "$REDIS_ADDRESS" ] || set -- --replicaof "$master" "$REDIS_PORT" "$@"

# State with a time to live: refuse writes when full rather than forget. A master whose replicas are behind by more than
# five seconds may have been replaced without knowing: it takes no write.
exec redis-server --bind 0.0.0.0 --port "$REDIS_PORT" --protected-mode no --dir /var/lib/redis-state \
  --save "" --appendonly yes --appendfsync everysec --maxmemory "$REDIS_MAXMEMORY" --maxmemory-policy noeviction \
  --aclfile /run/secrets/redis.acl --masteruser replica --masterauth "$replica_password" \
  --replica-announce-ip "$REDIS_ADDRESS" --replica-announce-port "$REDIS_PORT" --repl-diskless-sync yes \
  --repl-timeout 10 --repl-ping-replica-period 2 --min-replicas-to-write 1 --min-replicas-max-lag 5 "$@"
