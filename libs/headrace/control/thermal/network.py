"""A trained network of `make controllers` on ONNX Runtime: contexts in, the next second's speeds out.

ONNX Runtime is imported when a network is loaded, not before.
"""

import json
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

from headrace.control.thermal.base import Floats
from headrace.control.thermal.context import FEATURES, STEP_SECONDS, STEPS, Singles
from headrace.core.errors import Unavailable

NETWORKS = ("distilled", "scratch", "language")  # the first is the default
INPUTS, OUTPUT = ("returns", "observations", "actions"), "speed"
MANIFEST_FILE = "manifest.json"
# Rows at once: a fleet must not need memory for all its contexts in all layers.
ROWS = 256


def assets() -> Traversable:
    """The folder with the shipped networks."""
    return resources.files("headrace") / "assets" / "controllers"


@dataclass(frozen=True, slots=True)
class Trained:
    """What of its training serving needs."""

    target: float  # the return that is asked for
    least: float  # speeds that demonstrators chose, 0.1 % and 99.9 % of them: what is far outside is not believed
    most: float


class Network:
    """Not thread-safe for one caller at a time is assumed; may be called from any thread.

    Raises on loading:
        Unavailable: onnxruntime or the network's file is missing, or it is of another version of this code.
    """

    def __init__(self, name: str, folder: Traversable | None = None, threads: int = 1) -> None:
        from headrace.engines.runtime import open_session

        folder = folder or assets()
        manifest, graph = folder / MANIFEST_FILE, folder / f"{name}.onnx"
        if not (manifest.is_file() and graph.is_file()):
            raise Unavailable(f"the controller {name} is missing: run `make controllers`")
        told = json.loads(manifest.read_text())
        if (tuple(told["features"]), told["steps"], told["step_seconds"]) != (FEATURES, STEPS, STEP_SECONDS):
            raise Unavailable("the learnt controllers are of another version of this code: run `make controllers`")
        self.name = name
        self.trained = Trained(*(float(told["networks"][name][key]) for key in ("target", "least", "most")))
        self._session: Any = open_session(graph.read_bytes(), threads)
        self._inputs = tuple(one.name for one in self._session.get_inputs())

    def speeds(self, observations: Singles, actions: Singles) -> Floats:
        """[gpu], as the network says them: not bounded, perhaps nan.

        Raises:
            Unavailable: ONNX Runtime could not compute it.
        """
        from headrace.engines.runtime import computed

        parts = []
        for at in range(0, len(observations), ROWS):
            here = slice(at, at + ROWS)
            rows = len(observations[here])
            given = {
                "returns": np.full((rows, STEPS), self.trained.target, np.float32),
                "observations": observations[here],
                "actions": actions[here],
            }
            parts.append(computed(self._session, {name: given[name] for name in self._inputs})[0])
        found: Floats = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
        return found
