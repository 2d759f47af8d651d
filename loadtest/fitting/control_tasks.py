"""Reads the linear plants of an installed controlgym, and records short runs of it for the tests.

    python loadtest/fitting/control_tasks.py --package <site-packages>/controlgym --out <repository>

Needs numpy below 2, scipy and gymnasium 0.29: run it in an environment of its own, where nothing of Headrace is
installed. torch is not needed: the package's own `__init__`, which imports it for one of its controllers, is passed by.
"""

import argparse
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io

PLANTS = ("he1", "ac3", "cm1", "ac10", "he4", "cm2")
PARTS = ("A", "B1", "B2", "C", "C1", "D12", "D21")
FIELDS: dict[str, tuple[str, dict[str, float]]] = {
    "convection": ("ConvectionDiffusionReactionEnv", {}),
    "convection_changed": ("ConvectionDiffusionReactionEnv", {"convective_velocity": 0.15, "reaction_constant": 0.15}),
    "wave": ("WaveEnv", {}),
}
STEPS, SEED = 12, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="root of the repository")
    args = parser.parse_args()
    assets, tests = args.out / "libs/headrace/assets/control", args.out / "tests/decision"
    np.savez_compressed(assets / "complib.npz", **_matrices(args.package))
    envs = _envs(args.package)
    rng = np.random.default_rng(SEED)
    kept: dict[str, Any] = {}
    for name in PLANTS:
        kept |= _linear(envs.LinearControlEnv(id=name), name, rng)
    for name, (made, changed) in FIELDS.items():
        kept |= _field(getattr(envs, made)(sensor_noise_cov=0.0, **changed), name, rng)
    np.savez_compressed(tests / "controlgym.npz", **kept)


def _matrices(package: Path) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in PLANTS:
        read = io.loadmat(str(package / "envs" / "linear_control_src" / f"{name}.mat"))
        kept |= {f"{name}.{part}": read[part].astype(float) for part in PARTS}
    return kept


def _envs(package: Path) -> Any:
    bare = types.ModuleType("controlgym")
    bare.__path__ = [str(package)]
    sys.modules["controlgym"] = bare
    return importlib.import_module("controlgym.envs")


def _linear(env: Any, name: str, rng: np.random.Generator) -> dict[str, Any]:
    actions = rng.normal(size=(STEPS, env.n_action))
    noises = rng.normal(size=(STEPS, env.n_disturbance))
    env.state = first = rng.normal(size=env.n_state)
    stepped = [env.step(action, noise) for action, noise in zip(actions, noises, strict=True)]
    return _kept(name, env, stepped) | {f"{name}.actions": actions, f"{name}.noises": noises, f"{name}.first": first}


def _field(env: Any, name: str, rng: np.random.Generator) -> dict[str, Any]:
    actions = rng.normal(size=(STEPS, env.n_action))
    env.state = first = env.select_init_state(1.05, 0.045)
    stepped = [env.step(action) for action in actions]
    return _kept(name, env, stepped) | {f"{name}.actions": actions, f"{name}.first": first}


def _kept(name: str, env: Any, stepped: list[Any]) -> dict[str, Any]:
    return {
        f"{name}.seen": np.array([each[0] for each in stepped]),
        f"{name}.rewards": np.array([each[1] for each in stepped]),
        f"{name}.last": env.state,
    }


if __name__ == "__main__":
    main()
