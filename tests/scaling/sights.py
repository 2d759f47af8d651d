"""A pool as a policy sees it, in one line; and a small fleet under traffic that arithmetic can follow."""

from typing import Any

from headrace.core.scaling.base import ClassWait, Load, PoolSight, Sight

ENCODER: dict[str, Any] = {
    "name": "encode",
    "stages": ("encode",),
    "modalities": ("image",),
    "gpus": 1,
    "start_s": 20.0,
}
LLM: dict[str, Any] = {"name": "llm", "stages": ("prefill", "decode"), "modalities": (), "gpus": 4, "start_s": 60.0}


def pool(ready: int = 2, rate: float = 0.0, **changes: Any) -> PoolSight:
    """An encoder with 1000 tokens/s; `rate` in every window, and each window may be said apart."""
    load = Load(rate, 0.02 * rate, 100 if rate else 0)
    plain: dict[str, Any] = {
        "models": ("vision",),
        "least": 0,
        "most": 100,
        "ready": ready,
        "starting": 0,
        "draining": 0,
        "short": load,
        "before": load,
        "long": load,
        "capacity_per_s": 1000.0,
        "backlog": 0.0,
    }
    return PoolSight(**{**ENCODER, **plain, **changes})


def sight(*pools: PoolSight, attainment: float = 1.0, expected_s: float = -1.0) -> Sight:
    """expected_s: of the one class, whose target is 10 s."""
    waits = (ClassWait("interactive", 10.0, expected_s),)
    return Sight(pools, 30.0, 60.0, 300.0, 5.0, attainment, 100, waits)


def rate(per_s: float, spread: float = 0.02) -> Load:
    return Load(per_s, spread * per_s, 100 if per_s else 0)
