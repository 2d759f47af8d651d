"""What the simulator is held against: small meshes of this machine, and the requests that each is asked.

The load is light on purpose. Two cores carry the services, the client and, with a real model, the model; a simulation
knows nothing of processes that wait for a core.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.calibration import Plan
from headrace.cli.plan import MeshConfig
from headrace.profiles.reading import ROOT
from headrace.workload.scenario import Scenario, parse

# A KV cache of the modelled GPU's size would be written and read by this machine's processors: 150 KB a token is a
# gigabyte a second at 7,000 tokens/s, which no GPU's links would feel. So large a share of it passes between processes.
SMALL_KV_BYTES = 2048
PROFILE = "h100-qwen3-8b"


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    engine: str
    model: str
    known: bool  # the engine's costs are its profile's: the mesh's own seconds alone are calibrated
    rate_rps: float
    input_tokens: int  # longer prompts are cut
    output_tokens: int
    image_share: float
    plan: Plan
    colocate: tuple[str, ...] = ()
    wanted: Mapping[float, float] = field(default_factory=dict)  # quantile -> largest relative error

    def scenario(self, duration_s: float, seed: int) -> Scenario:
        """Without a fleet: that is the calibration's to say."""
        workload = {
            "kind": "generated",
            "generator": "multimodal",
            "rate_rps": self.rate_rps,
            "image_share": self.image_share,
            "profile": "flat",
            "bursty": False,
            "clip": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "parts": 2},
        }
        raw: dict[str, Any] = {"about": self.name, "duration_s": duration_s, "drain_s": 60.0, "model": self.model}
        return parse(raw | {"seed": seed, "workload": workload}, Path(f"{self.name}.toml"))

    def quick(self) -> "Subject":
        """A look: one repetition of a few probes."""
        return replace(self, plan=Plan(1, self.plan.lengths[::2], (2,), _PICTURES[:3]))

    def mesh_config(self, folder: Path) -> MeshConfig:
        return MeshConfig(
            data_dir=folder / "mesh",
            engine=self.engine,
            model=self.model,
            profile=str(_small_kv(folder)) if self.engine == "profile" else "",
            colocate=self.colocate,
            cores=len(os.sched_getaffinity(0)),
            # A prompt that begins as another did would skip its prefill; simulated prompts have no beginnings.
            environment={"HEADRACE_PREFIX_CACHE_MB": "0"},
        )


def _small_kv(folder: Path) -> Path:
    """The packaged profile with KV caches that this machine can carry."""
    text = (ROOT / "engine" / f"{PROFILE}.toml").read_text(encoding="utf-8")
    lines = [
        f"kv_bytes_per_token = {SMALL_KV_BYTES}" if line.startswith("kv_bytes_per_token") else line
        for line in text.splitlines()
    ]
    path = folder / f"{PROFILE}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


_MODELLED = {0.5: 0.05, 0.99: 0.15}
_REAL = {0.5: 0.15}
_PICTURES = ((64, 64, 1), (400, 300, 1), (800, 600, 1), (400, 300, 2), (1200, 900, 1), (1024, 768, 2))
_PROBES = Plan(2, (40, 80, 160, 320, 640), (2, 4), _PICTURES)
_REAL_PROBES = Plan(2, (48, 80, 128, 192, 256), (2, 4), _PICTURES)


def subjects(engine: str) -> tuple[Subject, ...]:
    """Stages apart, then in one process."""
    if engine == "profile":
        common = ("profile", "profile-tiny", True, 5.0, 600, 64, 0.2, _PROBES)
        return (
            Subject("separated", *common, wanted=_MODELLED),
            Subject("colocated", *common, ("prefill", "decode"), _MODELLED),
        )
    common = (engine, "smollm2-135m", False, 0.25, 256, 24, 0.2, _REAL_PROBES)
    return (
        Subject(f"{engine}-separated", *common, wanted=_REAL),
        Subject(f"{engine}-colocated", *common, ("prefill", "decode"), _REAL),
    )
