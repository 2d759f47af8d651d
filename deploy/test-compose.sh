#!/usr/bin/env bash
# The compose deployment for real: build, up, a question about an image, a worker killed under load, down.
# `test-compose.sh secure`: the same behind certificates, users and API keys (deploy/compose.secure.yaml); `cluster`:
# the same with three NATS servers, Redis behind Sentinels and two of each service (deploy/compose.cluster.yaml).
# Takes the Docker engine of DOCKER_HOST (or the default one); skips, saying so, where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "test-compose: skipped, $1"; exit 0; }
command -v docker >/dev/null || skip "there is no docker command"
docker info >/dev/null 2>&1 || skip "no Docker engine answers (set DOCKER_HOST, or start one)"
docker compose version >/dev/null 2>&1 || skip "docker has no compose plugin"

python=${PYTHON:-.venv/bin/python}
free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
export COMPOSE_PROJECT_NAME="headrace-test-$$"
export HEADRACE_IMAGE=headrace:test HEADRACE_NATS_IMAGE=headrace-nats:test HEADRACE_REDIS_IMAGE=headrace-redis:test
HTTP_PORT=$(free_port)
GRPC_PORT=$(free_port)
export HTTP_PORT GRPC_PORT
compose=(docker compose --project-directory . --env-file /dev/null)
leg=${1:-plain}
manager=queue-manager managers=127.0.0.1:50051 nats=nats redis=redis gateway=gateway
url="http://127.0.0.1:$HTTP_PORT" inside=() trial=()

make_papers() {
  papers=$(mktemp -d)
  export HEADRACE_SECRETS_DIR=$papers
  "$python" -m headrace.cli.main certs "$papers" --host nats --host redis --host gateway >/dev/null
  trial=(--key "$papers/trial.key")
  inside=(--env "HEADRACE_API_KEY=$(cat "$papers/operator.key")")
  # Who is not root lets everybody on this machine read them instead.
  chown -R 10001 "$papers" 2>/dev/null || chmod -R a+rX "$papers"
}

case $leg in
  plain) compose+=(--file compose.yaml) ;;
  secure)
    make_papers
    compose+=(--file compose.yaml --file deploy/compose.secure.yaml)
    url="https://127.0.0.1:$HTTP_PORT"
    trial+=(--ca "$papers/ca.crt")
    ;;
  cluster)
    make_papers
    compose+=(--file deploy/compose.cluster.yaml)
    HTTP_PORT_2=$(free_port)
    GRPC_PORT_2=$(free_port)
    export HTTP_PORT_2 GRPC_PORT_2
    manager=governor managers="queue-manager-1:50051 queue-manager-2:50051" # the standby answers nothing
    nats=nats-1 redis=redis-1 gateway=gateway-1
    ;;
  *) echo "usage: test-compose.sh [plain | secure | cluster]" >&2 && exit 2 ;;
esac

down() {
  local status=$?
  [ "$status" -eq 0 ] || "${compose[@]}" logs --tail 40 || true
  "${compose[@]}" down --volumes --timeout 10 >/dev/null 2>&1 || echo "test-compose: could not remove what it made" >&2
  [ -z "${papers:-}" ] || rm -rf "$papers"
  exit "$status"
}
trap down EXIT

echo "test-compose: every overlay is valid"
for overlay in gpu observability secure; do
  docker compose --file compose.yaml --file "deploy/compose.$overlay.yaml" config --quiet
done
docker compose --project-directory . --file deploy/compose.cluster.yaml config --quiet

echo "test-compose: build"
# One after the other: a builder without BuildKit would do the same work for each service at once.
for service in "$nats" "$redis" "$gateway"; do "${compose[@]}" build --quiet "$service"; done

echo "test-compose: up, with two decode workers"
"${compose[@]}" up --detach --wait --wait-timeout 600 --scale decode=2

# The decode worker with most to do; a worker's id ends with its container's.
busiest='
import asyncio, sys
import grpc
from headrace.client.operator import cell_status

def cells():
    for address in sys.argv[1:]:
        try:
            yield asyncio.run(cell_status(address))
        except grpc.RpcError:
            continue

workers = [worker for cell in cells() for worker in cell.workers if "decode" in worker.stages]
print(max(workers, key=lambda worker: worker.slots_used).worker.removeprefix("decode-"))
'
export busiest
kill_decode="docker kill \$(${compose[*]} exec -T ${inside[*]} $manager python -c \"\$busiest\" $managers)"
"$python" deploy/trial.py "$url" --kill "$kill_decode" "${trial[@]}"

echo "test-compose: down"
"${compose[@]}" down --volumes --timeout 40
left=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
[ -z "$left" ] || { echo "test-compose: volumes left behind: $left" >&2; exit 1; }
echo "test-compose: passed"
