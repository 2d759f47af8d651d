"""Runs inside a container of the cluster, with the image's own packages: who leads what, and what is still held.

For each line that it reads it prints one JSON object: its imports take seconds on a busy machine. Of what does not
answer the value is missing, and its name stands under "silent".
"""

import asyncio
import json
import sys
import urllib.request
from typing import Any

import grpc
import redis
from redis.sentinel import Sentinel

from headrace.client import operator

QUEUE_MANAGERS = ("queue-manager-1", "queue-manager-2")
NATS = ("nats-1", "nats-2", "nats-3")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
WAIT_S = 3.0
WORKER_COUNTS = ("slots_used", "blocks_used", "handles", "mapped_files", "kept_requests", "offers")
# hr:{cell}:<kind>:<id>: no request stands in these.
STANDING_KINDS = ("worker", "queue", "governor")


async def queue(told: dict[str, Any]) -> None:
    for name in QUEUE_MANAGERS:
        try:
            status = await operator.cell_status(f"{name}:50051")
        except grpc.RpcError:
            continue  # it stands by, or is gone
        if status.epoch <= told.get("epoch", 0):
            continue
        told["epoch"], told["queue_manager"] = status.epoch, name
        told["workers"] = [worker.worker for worker in status.workers]
        told["held"] = {
            "queued": sum(entry.queued for entry in status.classes),
            "running": sum(entry.running for entry in status.classes),
        }


async def worker(told: dict[str, Any], name: str) -> None:
    try:
        state = await operator.worker_state(f"{name.partition('-')[2]}:50051")  # <stage>-<name of the container>
    except grpc.RpcError:
        told["silent"].append(name)
    else:
        told["held"].update({f"{name} {count}": int(getattr(state, count)) for count in WORKER_COUNTS})


def nats(told: dict[str, Any]) -> None:
    told["streams"] = {}
    for name in NATS:
        try:
            with urllib.request.urlopen(f"http://{name}:8222/jsz?streams=1", timeout=WAIT_S) as reply:
                accounts = json.load(reply).get("account_details", [])
        except OSError:
            told["silent"].append(name)
            continue
        for detail in (stream for account in accounts for stream in account.get("stream_detail", [])):
            cluster = detail.get("cluster", {})
            if cluster.get("leader") == name:
                replicas = [replica.get("current", False) for replica in cluster.get("replicas", [])]
                told["streams"][detail["name"]] = {"leader": name, "current": sum(replicas)}
                if detail["name"] == "REQUESTS":
                    told["held"]["journal records"] = detail["state"]["messages"]


def state(told: dict[str, Any]) -> None:
    with open("/run/secrets/redis.password") as file:
        login = {"username": "headrace", "password": file.read().strip(), "socket_timeout": WAIT_S}
    watching: Any = Sentinel([(name, 26379) for name in SENTINELS], sentinel_kwargs=login)  # type: ignore[no-untyped-call]
    try:
        told["redis"] = watching.discover_master("headrace")[0]
        master = watching.master_for("headrace", **login)
        kinds = [key.decode().split(":")[2] for key in master.scan_iter("hr:*")]
    except redis.RedisError:
        told["silent"].append("redis")
        return
    for kind in kinds:
        if kind not in STANDING_KINDS:
            told["held"][f"redis {kind}"] = told["held"].get(f"redis {kind}", 0) + 1


async def look() -> None:
    told: dict[str, Any] = {"silent": [], "held": {}}
    await queue(told)
    await asyncio.gather(*(worker(told, name) for name in told.get("workers", ())))
    nats(told)
    state(told)
    told["held"] = {name: count for name, count in told["held"].items() if count}
    print(json.dumps(told), flush=True)


for _ in sys.stdin:
    asyncio.run(look())
