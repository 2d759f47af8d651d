"""Trains the learnt thermal controllers: `python -m headrace.training.controllers [--out DIR] [--seed N]`.

Demonstrations on randomised plants, then the network from scratch, the one around the packaged language model, and one
distilled from the first. On one thread: more would change sums, and so the weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.control.randomised import TRAINED
from headrace.control.thermal.context import FEATURES, STEP_SECONDS, STEPS
from headrace.control.thermal.network import MANIFEST_FILE, NETWORKS
from headrace.report.provenance import provenance
from headrace.training.controllers.demonstrations import Demonstrations, collect
from headrace.training.controllers.export import export, pack
from headrace.training.controllers.fit import RECIPES, distil, fit, scales
from headrace.training.controllers.nets import BODIES, Distilled, Served, Transformer

ASSETS = Path(__file__).parents[2] / "assets" / "controllers"
SEED = 0
PLANTS = {"kalman": 96, "lqg": 96, "mpc": 24, "oracle": 96}
FIRST_PLANT = 10_000  # benches draw theirs from 1 on, tuning from 101 on
TARGET = 0.75  # quantile of the returns where somebody slows down
OUTSIDE = 0.001  # of the demonstrators' speeds lie below and above what is believed
PACKED = ("language",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.controllers", description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(args.out, args.seed)


def say(text: str) -> None:
    print(f"{time.process_time():7.1f} s  {text}", file=sys.stderr, flush=True)


def train(out: Path, seed: int) -> None:
    shown = collect(PLANTS, FIRST_PLANT, say)
    slow = shown.said < 0.99
    target = float(np.quantile(shown.returns[slow], TARGET))
    least, most = (float(np.quantile(shown.said, share)) for share in (OUTSIDE, 1.0 - OUTSIDE))
    say(f"speeds from {least:.3f} to {most:.3f}, {slow.mean():.1%} below full; target return {target:.4f}")
    networks: dict[str, Any] = {}
    about = {"target": target, "least": least, "most": most}
    of = scales(shown)

    def kept(name: str, net: Transformer | Distilled, learn: Callable[[], float]) -> None:
        began_s, parameters = time.process_time(), sum(one.numel() for one in net.parameters() if one.requires_grad)
        rmse, took_s = learn(), round(time.process_time() - began_s, 1)
        size = _write(name, net, out)
        facts = {"trained_parameters": parameters, "held_out_rmse": rmse, "processor_s": took_s, "bytes": size}
        networks[name] = about | facts | {"recipe": asdict(RECIPES[name])}
        say(f"{name}: {parameters:,} parameters, off by {rmse:.4f} on held-out episodes, {size / 1e6:.2f} MB")

    scratch, language = (Transformer(BODIES[name](seed), of, seed) for name in ("scratch", "language"))
    small = Distilled(of, seed)
    kept("scratch", scratch, lambda: fit(scratch, shown, RECIPES["scratch"], seed, say))
    kept("distilled", small, lambda: distil(small, scratch, shown, target, seed, say))
    kept("language", language, lambda: fit(language, shown, RECIPES["language"], seed, say))
    _manifest(out, seed, shown, networks)


def _write(name: str, net: Transformer | Distilled, out: Path) -> int:
    """Its size in bytes."""
    path = out / f"{name}.onnx"
    export(Served(net) if isinstance(net, Transformer) else net, path)
    if name in PACKED:
        pack(path)
    return path.stat().st_size


def _manifest(out: Path, seed: int, shown: Demonstrations, networks: dict[str, Any]) -> None:
    command = ["python", "-m", "headrace.training.controllers", *sys.argv[1:]]
    manifest = {
        "what": "learnt thermal controllers: trained on demonstrations of Kalman, LQG, MPC and an informed Kalman",
        **provenance(command, [seed]).head(),
        "features": FEATURES,
        "steps": STEPS,
        "step_seconds": STEP_SECONDS,
        "plants": PLANTS | {"first_seed": FIRST_PLANT},
        "ranges": asdict(TRAINED),
        "seconds": int(shown.said.size),
        "language_model": "the first layers of SmolLM2-135M (Apache-2.0) with merged low-rank adapters, in 8 bits",
        "networks": {name: networks[name] for name in NETWORKS},
    }
    (out / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
