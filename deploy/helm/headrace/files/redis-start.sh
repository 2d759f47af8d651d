#!/bin/sh
# A Redis server, a sentinel beside it, or whether one of them answers. SELF: this pod's name; FIRST: the master of an
# empty cell; PEERS: all pods (empty: one server and no sentinels); MASTER: its name among sentinels; PAPERS: directory
# of passwords and certificates (empty: neither). On one machine names are host:port, a sentinel's port 20000 above.
set -eu
port=${REDIS_PORT:-6379} watch=${SENTINEL_PORT:-26379} state=${STATE:-/var/lib/redis-state}
encrypted=""
[ -z "$PAPERS" ] || [ ! -f "$PAPERS/member.crt" ] || encrypted=yes

port_of() { case $1 in *:*) echo "${1#*:}" ;; *) echo "$port" ;; esac; }
sentinel_of() { case $1 in *:*) echo $((${1#*:} + 20000)) ;; *) echo "$watch" ;; esac; }
ask() { # host, port, command: as a sentinel does
  host=$1 at=$2
  shift 2
  [ -z "$encrypted" ] || set -- --tls --cacert "$PAPERS/ca.crt" --cert "$PAPERS/member.crt" --key "$PAPERS/member.key" "$@"
  if [ -n "$PAPERS" ]; then
    REDISCLI_AUTH=$(cat "$PAPERS/redis-replica.password") timeout 3 redis-cli -h "$host" -p "$at" --user sentinel --no-auth-warning "$@"
  else
    timeout 3 redis-cli -h "$host" -p "$at" "$@"
  fi
}
listen() { # port
  echo "bind 0.0.0.0
protected-mode no"
  if [ -n "$encrypted" ]; then
    echo "port 0
tls-port $1
tls-cert-file $PAPERS/member.crt
tls-key-file $PAPERS/member.key
tls-ca-cert-file $PAPERS/ca.crt
tls-replication yes"
  else
    echo "port $1"
  fi
}
master() { # host and port by the word of a sentinel; FIRST where none of them knows
  for peer in $PEERS; do
    found=$(ask "${peer%:*}" "$(sentinel_of "$peer")" sentinel get-master-addr-by-name "$MASTER" 2>/dev/null | tr '\n' ' ') || found=
    case $found in *" "[0-9]*) echo "$found" && return ;; esac
  done
  echo "${FIRST%:*} $(port_of "$FIRST")"
}
server() {
  listen "$port"
  echo "dir $state
save \"\"
appendonly yes
appendfsync everysec
maxmemory $MAXMEMORY
maxmemory-policy noeviction"
  [ -z "$PAPERS" ] || echo "aclfile $PAPERS/redis.acl
masteruser replica
masterauth $(cat "$PAPERS/redis-replica.password")"
  [ -n "$PEERS" ] || return 0
  echo "replica-announce-ip ${SELF%:*}
replica-announce-port $port"
  [ "$1 $2" = "${SELF%:*} $port" ] || echo "replicaof $1 $2"
}
sentinel() {
  listen "$watch"
  echo "dir $state
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip ${SELF%:*}
sentinel announce-port $watch
sentinel monitor $MASTER $1 $2 2
sentinel down-after-milliseconds $MASTER ${DOWN_MS:-5000}
sentinel failover-timeout $MASTER ${FAILOVER_MS:-30000}
sentinel parallel-syncs $MASTER 1"
  [ -z "$PAPERS" ] || echo "aclfile $PAPERS/sentinel.acl
sentinel auth-user $MASTER sentinel
sentinel auth-pass $MASTER $(cat "$PAPERS/redis-replica.password")
sentinel sentinel-user sentinel
sentinel sentinel-pass $(cat "$PAPERS/redis-replica.password")"
}

umask 077
case $1 in
redis-answers) ask 127.0.0.1 "$port" ping | grep -q PONG ;;
sentinel-answers) ask 127.0.0.1 "$watch" ping | grep -q PONG ;;
redis)
  # shellcheck disable=SC2046
  server $(master) > "$state/redis.conf"
  exec redis-server "$state/redis.conf" ;;
sentinel)
  # shellcheck disable=SC2046
  sentinel $(master) > "$state/sentinel.conf"
  exec redis-server "$state/sentinel.conf" --sentinel ;;
esac
