#!/usr/bin/env bash
# The compose deployment for real: build, up, a question about an image, a worker killed under load, down.
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
compose=(docker compose --env-file /dev/null --file compose.yaml)

down() {
  local status=$?
  [ "$status" -eq 0 ] || "${compose[@]}" logs --tail 40 || true
  "${compose[@]}" down --volumes --timeout 10 >/dev/null 2>&1 || echo "test-compose: could not remove what it made" >&2
  exit "$status"
}
trap down EXIT

echo "test-compose: every overlay is valid"
for overlay in gpu observability; do
  docker compose --file compose.yaml --file "deploy/compose.$overlay.yaml" config --quiet
done

echo "test-compose: build"
# One after the other: a builder without BuildKit would do the same work for each service at once.
"${compose[@]}" build --quiet nats && "${compose[@]}" build --quiet redis && "${compose[@]}" build --quiet gateway

echo "test-compose: up, with two decode workers"
"${compose[@]}" up --detach --build --wait --wait-timeout 300 --scale decode=2

# The decode worker with most to do; a worker's id ends with its container's.
busiest='
import asyncio
from headrace.client.operator import cell_status
workers = [w for w in asyncio.run(cell_status("127.0.0.1:50051")).workers if "decode" in w.stages]
print(max(workers, key=lambda w: w.slots_used).worker.removeprefix("decode-"))
'
export busiest
kill_decode="docker kill \$(${compose[*]} exec -T queue-manager python -c \"\$busiest\")"
"$python" deploy/trial.py "http://127.0.0.1:$HTTP_PORT" --kill "$kill_decode"

echo "test-compose: down"
"${compose[@]}" down --volumes --timeout 40
left=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
[ -z "$left" ] || { echo "test-compose: volumes left behind: $left" >&2; exit 1; }
trap - EXIT
echo "test-compose: passed"
