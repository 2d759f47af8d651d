"""A large cell that nobody runs: 64 instances, 1,000 request groups, ever changing, as its managers would tell it."""

import random
from collections.abc import Iterator
from typing import Any

from headrace.v1 import governor_pb2, queue_pb2
from services.gateway.console import shown
from services.gateway.console.heard import Hearing

INSTANCES, GROUPS = 64, 1_000
CLASSES = (("interactive", 20.0), ("batch-1", 60.0), ("batch-2", 3_600.0))
SLOTS, BLOCKS = 32, 4_096
MOST_W = 700.0


class Cell:
    """Every step some heads are served, new groups come, some go elsewhere, all that is expected changes a little."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._number = 0
        self.now_s = 1_800_000_000.0
        self._queues: list[list[queue_pb2.GroupStatus]] = [[] for _ in range(INSTANCES)]
        for at in range(GROUPS):
            self._queues[at % INSTANCES].append(self._group())
        self._tokens = [0] * INSTANCES

    def _group(self) -> queue_pb2.GroupStatus:
        self._number += 1
        draw = self._draw
        name, target_s = draw.choice(CLASSES)
        wait_s = draw.uniform(0.0, 1.5 * target_s)
        return queue_pb2.GroupStatus(
            id=self._number,
            model="some-model",
            slo_class=name,
            size="prompts of 256 to 511 tokens, answers of 128 to 255",
            waiting=draw.randint(1, 40),
            due_in_s=target_s * draw.uniform(0.3, 1.0),
            estimated_wait_s=wait_s,
            estimated_wait_bound_s=1.4 * wait_s,
            output_tokens=draw.uniform(100.0, 9_000.0),
        )

    def step(self, passed_s: float) -> None:
        draw = self._draw
        self.now_s += passed_s
        for queue in self._queues:
            if queue and draw.random() < 0.1:
                queue.pop(0)
                draw.choice(self._queues).append(self._group())
            if len(queue) > 1 and draw.random() < 0.05:
                draw.choice(self._queues).insert(0, queue.pop())
            for group in queue:
                group.due_in_s -= passed_s
                group.estimated_wait_s = max(0.0, group.estimated_wait_s - passed_s * draw.uniform(0.0, 2.0))

    def inspected(self, groups_max: int) -> queue_pb2.InspectResponse:
        queues = [
            queue_pb2.VirtualQueueStatus(
                worker=f"worker-{at}",
                model="some-model",
                running=SLOTS,
                slots=SLOTS,
                slots_usable=SLOTS,
                tokens_per_s=900.0,
                groups=queue[:groups_max],
                prefill_speed=0.9,
                decode_speed=1.0,
                weight=1.0,
                groups_left_out=max(0, len(queue) - groups_max),
                waiting_left_out=sum(group.waiting for group in queue[groups_max:]),
            )
            for at, queue in enumerate(self._queues)
        ]
        return queue_pb2.InspectResponse(policy="headrace", leader="qm-0", queues=queues)

    def status(self) -> queue_pb2.CellStatus:
        workers = [
            queue_pb2.WorkerStatus(
                worker=f"worker-{at}",
                stages=["prefill", "decode"],
                model="some-model",
                slots=SLOTS,
                slots_used=self._draw.randint(SLOTS // 2, SLOTS),
                blocks=BLOCKS,
                blocks_used=self._draw.randint(0, BLOCKS),
            )
            for at in range(INSTANCES)
        ]
        classes = [
            queue_pb2.ClassStatus(slo_class=name, queued=300, running=600, queue_limit=4_096) for name, _ in CLASSES
        ]
        return queue_pb2.CellStatus(classes=classes, workers=workers)

    def telemetry(self, hearing: Hearing) -> None:
        draw = self._draw
        for at in range(INSTANCES):
            self._tokens[at] += draw.randint(500, 1_000)
            sample = governor_pb2.Telemetry(
                worker=f"worker-{at}", incarnation="a", host="h", sent_s=self.now_s, decode_tokens=self._tokens[at]
            )
            watts, heat = draw.uniform(300.0, MOST_W), float(draw.randint(50, 80))
            sample.devices.add(
                device="plant:0", source="plant", power_w=watts, temp_c=heat, cap_most_w=MOST_W, speed=0.9, busy=0.9
            )
            hearing.on_telemetry(sample.SerializeToString())


def states(seed: int, groups_max: int, passed_s: float) -> Iterator[dict[str, Any]]:
    """As the gateway's feed would make them."""
    cell, hearing = Cell(seed), Hearing()
    step = 0
    while True:
        if step % 4 == 0:
            cell.telemetry(hearing)
        yield state_of(cell, hearing, groups_max)
        cell.step(passed_s)
        step += 1


def state_of(cell: Cell, hearing: Hearing, groups_max: int) -> dict[str, Any]:
    inspected, status = cell.inspected(groups_max), cell.status()
    point = {"at_s": round(cell.now_s, 1), "queued": 900, "running": 1_800, "limit_w": None}
    point |= {name: shown.rounded(hearing.rate(counter)) for name, counter in _COUNTERS.items()}
    point |= {"accepted_s": 30.0, "ended_s": 30.0, "refused_s": 0.0, "p50_s": 1.5, "p99_s": 7.5}
    point |= {"power_w": shown.rounded(hearing.power_w(), 4), "hottest_c": shown.rounded(hearing.hottest_c())}
    return {
        "gateway": "gateway-0",
        "leader": "qm-0",
        "epoch": 1,
        "policy": inspected.policy,
        "models": ["some-model"],
        "trouble": {},
        "classes": [_class(load) for load in status.classes],
        "workers": shown.workers(status, hearing),
        "queues": [shown.queue(one) for one in inspected.queues],
        "groups": shown.groups(inspected, cell.now_s),
        "unplaced": [],
        "operations": {},
        "flows": [],
        "rows": [],
        "stages": [],
        "mode": "enforce",
        "notes": [],
        "scaling": None,
        "switches": [],
        "audit": [],
        "actions": [],
        "recent": [],
        "point": point,
        "history": [point],
    }


_COUNTERS = {"tokens_s": "decode_tokens", "prompt_s": "prefill_tokens", "parts_s": "encoded_parts"}


def _class(load: queue_pb2.ClassStatus) -> shown.Shown:
    told = {"name": load.slo_class, "target_s": dict(CLASSES)[load.slo_class], "queued": load.queued}
    told |= {"running": load.running, "limit": load.queue_limit, "oldest_s": 3.0, "wait_s": 5.0}
    return told | {"answered": 300, "p50_s": 1.5, "p99_s": 7.5, "kept": 0.97}
