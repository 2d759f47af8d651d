"""A world whose queue manager plans request groups, in a hurry: nothing rests, and plans come each half second."""

from typing import Any

from headrace.core.queue import QueueConfig
from headrace.core.slo import SloClass
from tests.core.queue_world import World

URGENT = SloClass("interactive", ttft_s=2.0, timeout_s=1e5, queue_limit=1000)
PATIENT = SloClass("batch-2", ttft_s=3600.0, timeout_s=1e5, queue_limit=1000)
SOON = {"interactive": URGENT, "batch-2": PATIENT}


def config(**changes: Any) -> QueueConfig:
    lively: dict[str, Any] = {"evict_rest_s": 0.0, "evict_tokens_min": 1, "replan_s": 0.5}
    return QueueConfig(**lively | {"epoch": 1, "planner": "headrace", "classes": SOON} | changes)


def world_of(*, slots: int = 2, workers: int = 1, models: tuple[str, ...] = ("m",), **changes: Any) -> World:
    world = World(config(**changes))
    world.host_bytes = 1 << 20
    for number in range(workers):
        world.add_worker(f"w{number}", "prefill", "decode", slots=slots, models=models)
    world.pass_time(0.5)
    return world


def operations(world: World) -> dict[str, int]:
    return world.core.inspect(world.now_s).operations


def seen(world: World, request_id: str) -> int:
    return len(world.gateway.tokens.get(request_id, ()))


def first_tokens_s(world: World, request_ids: list[str], limit_s: float = 60.0) -> dict[str, float]:
    """When each of them has shown its first token, from now on."""
    start_s, shown = world.now_s, dict[str, float]()
    while len(shown) < len(request_ids) and world.now_s - start_s < limit_s:
        world.pass_time(0.5)
        for request_id in request_ids:
            if seen(world, request_id):
                shown.setdefault(request_id, world.now_s - start_s)
    return shown
