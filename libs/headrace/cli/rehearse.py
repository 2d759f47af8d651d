"""The mesh of a rehearsal: what `headrace demo-governor` and `headrace bench governor` start."""

import os
from pathlib import Path
from typing import Any

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.rehearsal.scene import Scene
from headrace.rehearsal.stage import Stage


def mesh_config(scene: Scene, folder: Path, **changes: Any) -> MeshConfig:
    """Writes the scene's files into the folder. Nothing is started again: what dies fails the rehearsal."""
    environment = scene.environment(folder) | changes.pop("environment", {})
    settings: dict[str, Any] = {
        "data_dir": folder / "mesh",
        "engine": "profile",
        "model": "profile-tiny",
        "encoders": scene.encoders,
        "prefill": scene.prefill,
        "decode": scene.decode,
        "restart": False,
        "cores": len(os.sched_getaffinity(0)),
        "environment": environment,
    }
    return MeshConfig(**(settings | changes))


def stage(scene: Scene, mesh: Mesh) -> Stage:
    return Stage(scene, mesh.grpc_addr, mesh.addresses.grpc["governor-0"], mesh.addresses.nats_url)
