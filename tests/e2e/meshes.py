"""The meshes that the end-to-end and chaos tests run on: small, quick, without weights."""

import os
from pathlib import Path
from typing import Any

from headrace.cli.plan import MeshConfig

STEADY = Path(__file__).parent / "steady.toml"


def small_mesh(data_dir: Path, **changes: Any) -> MeshConfig:
    """Profile engine, byte model, two gateways; one of every worker, with 8 slots, unless changed."""
    # Small KV caches are offered, too: every hand-over goes the longer way.
    environment = {"HEADRACE_SLOTS": "8", "HEADRACE_KV_PIPELINE": "on", **changes.pop("environment", {})}
    settings: dict[str, Any] = {
        "data_dir": data_dir,
        "engine": "profile",
        "profile": str(STEADY),
        "model": "profile-tiny",
        "gateways": 2,
        "cores": len(os.sched_getaffinity(0)),
        "start_timeout_s": 40.0,
        "environment": environment,
    }
    return MeshConfig(**(settings | changes))


def chaos_mesh(data_dir: Path) -> MeshConfig:
    """Two of every worker, so that what a dead or stopped one held goes on at the other."""
    return small_mesh(data_dir, encoders=2, prefill=2, decode=2)
