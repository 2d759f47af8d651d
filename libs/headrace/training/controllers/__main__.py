"""Trains the learnt thermal controllers: `python -m headrace.training.controllers [--out DIR] [--seed N]`.

Demonstrations on randomised plants, then the network from scratch, the one around the packaged language model, and one
distilled from the first. On one thread: more would change sums, and so the weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.control.randomised import TRAINED
from headrace.control.thermal.context import FEATURES, STEP_SECONDS, STEPS
from headrace.control.thermal.network import MANIFEST_FILE
from headrace.report.provenance import provenance
from headrace.training.controllers.demonstrations import Demonstrations, collect
from headrace.training.controllers.export import export, quantise
from headrace.training.controllers.fit import RECIPES, distil, fit, scales
from headrace.training.controllers.nets import BODIES, Distilled, Served, Transformer

ASSETS = Path(__file__).parents[2] / "assets" / "controllers"
SEED = 0
PLANTS = {"kalman": 96, "lqg": 96, "mpc": 24, "oracle": 96}
FIRST_PLANT = 10_000  # benches draw theirs from 1 on, tuning from 101 on
TARGET = 0.75  # quantile of the returns where somebody slows down
OUTSIDE = 0.001  # of the demonstrators' speeds lie below and above what is believed
# Two fifths of the time of float32 and a quarter of its size, at the same error on held-out windows.
QUANTISED = ("language",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.controllers", description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=list(LEARNERS), help="scratch: with the one that is distilled from it")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(args.out, args.seed, (args.only,) if args.only else tuple(LEARNERS))


def say(text: str) -> None:
    print(f"{time.process_time():7.1f} s  {text}", file=sys.stderr, flush=True)


def train(out: Path, seed: int, names: tuple[str, ...]) -> None:
    shown = collect(PLANTS, FIRST_PLANT, say)
    slow = shown.said < 0.99
    target = float(np.quantile(shown.returns[slow], TARGET))
    least, most = (float(np.quantile(shown.said, share)) for share in (OUTSIDE, 1.0 - OUTSIDE))
    say(f"speeds from {least:.3f} to {most:.3f}, {slow.mean():.1%} below full; target return {target:.4f}")
    about = {"target": target, "least": least, "most": most}
    for name in names:
        for each in LEARNERS[name](shown, target, seed):
            size = _write(each.name, each.net, out)
            facts = {"trained_parameters": each.parameters, "held_out_rmse": each.rmse, "processor_s": each.took_s}
            _manifest(
                out, seed, shown, each.name, about | facts | {"bytes": size, "recipe": asdict(RECIPES[each.name])}
            )
            say(f"{each.name}: {each.parameters:,} parameters, off by {each.rmse:.4f}, {size / 1e6:.2f} MB")


@dataclass(frozen=True, slots=True)
class Learnt:
    name: str
    net: Transformer | Distilled
    parameters: int  # trained
    rmse: float  # of the speed, on held-out episodes
    took_s: float  # of a processor


def _learnt(name: str, net: Transformer | Distilled, learn: Callable[[], float]) -> Learnt:
    parameters, began_s = sum(one.numel() for one in net.parameters() if one.requires_grad), time.process_time()
    rmse = learn()
    return Learnt(name, net, parameters, rmse, round(time.process_time() - began_s, 1))


def _scratch(shown: Demonstrations, target: float, seed: int) -> Iterator[Learnt]:
    of = scales(shown)
    teacher, small = Transformer(BODIES["scratch"](seed), of, seed), Distilled(of, seed)
    yield _learnt("scratch", teacher, lambda: fit(teacher, shown, RECIPES["scratch"], seed, say))
    yield _learnt("distilled", small, lambda: distil(small, teacher, shown, target, seed, say))


def _language(shown: Demonstrations, _target: float, seed: int) -> Iterator[Learnt]:
    net = Transformer(BODIES["language"](seed), scales(shown), seed)
    yield _learnt("language", net, lambda: fit(net, shown, RECIPES["language"], seed, say))


LEARNERS: dict[str, Callable[[Demonstrations, float, int], Iterator[Learnt]]] = {
    "scratch": _scratch,
    "language": _language,
}


def _write(name: str, net: Transformer | Distilled, out: Path) -> int:
    """Its size in bytes."""
    path = out / f"{name}.onnx"
    export(Served(net) if isinstance(net, Transformer) else net, path)
    if name in QUANTISED:
        quantise(path)
    return path.stat().st_size


def _manifest(out: Path, seed: int, shown: Demonstrations, name: str, facts: dict[str, Any]) -> None:
    """What is known of the other networks stays, as they do."""
    path = out / MANIFEST_FILE
    networks = json.loads(path.read_text())["networks"] if path.is_file() else {}
    command = ["python", "-m", "headrace.training.controllers", *sys.argv[1:]]
    made = provenance(command, [seed]).head()
    manifest = {
        "what": "learnt thermal controllers: trained on demonstrations of Kalman, LQG, MPC and an informed Kalman",
        "features": FEATURES,
        "steps": STEPS,
        "step_seconds": STEP_SECONDS,
        "plants": PLANTS | {"first_seed": FIRST_PLANT},
        "ranges": asdict(TRAINED),
        "seconds": int(shown.said.size),
        "language_model": "the first layers of SmolLM2-135M (Apache-2.0) with merged low-rank adapters, in 8 bits",
        "networks": networks | {name: facts | made},
    }
    path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
