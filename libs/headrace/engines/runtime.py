"""ONNX Runtime sessions: the one place that imports it, because it must be told two things first.

Its release builds report usage to their maker unless the environment says no before the import; and its
threads spin while they wait, which starves the other workers of a machine unless it is bounded.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import Unavailable

# A decode step has some 300 parallel nodes: waking a thread for each costs a tenth of it, spinning longer nothing more.
_SPIN_US = "100"
_DRIVER = Path("/dev/nvidiactl")  # NVIDIA's, on Linux
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# The arena grows by what is asked for, not to the next power of two: beside the weights lies the KV of the groups.
# A convolution's algorithm is looked up, not searched for: encoders run at many sizes, once each.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}

# What it raises at that: each by itself, with no base of their own.
_REFUSALS = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "RuntimeException")


def open_session(model: Path | bytes, threads: int, device: str = "cpu") -> Any:
    """An InferenceSession on a device ("cpu" or "cuda"), from a file or from a model's bytes.

    Raises:
        Unavailable: onnxruntime is not installed, it cannot run on that device or finds no room there, or this is no
            graph.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    # Products of bytes overflow 16 bits on processors without VNNI, and a network's answers would depend on where it
    # runs: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#when-to-use-reduce-range
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change with every step
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    source = model if isinstance(model, bytes) else str(model)
    wanted: list[Any] = [_PROVIDERS["cpu"]]
    if device == "cuda":
        wanted.insert(0, (_PROVIDERS["cuda"], _CUDA_OPTIONS))
    try:
        session = onnxruntime.InferenceSession(source, options, providers=wanted)
    except _refusals() as error:
        raise Unavailable(str(error)) from error
    if session.get_providers()[0] != _PROVIDERS[device]:  # a missing driver or library is only a line of its log
        raise Unavailable(f"onnxruntime was asked for {_PROVIDERS[device]} and runs on {session.get_providers()}")
    return session


def computed(session: Any, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
    """All outputs.

    Raises:
        Unavailable: ONNX Runtime refused the inputs or failed.
    """
    try:
        outputs: list[Any] = session.run(None, dict(inputs))
    except _refusals() as error:
        raise Unavailable(str(error)) from error
    return outputs


def _refusals() -> tuple[type[Exception], ...]:
    state = _onnxruntime().capi.onnxruntime_pybind11_state
    return tuple(getattr(state, name) for name in _REFUSALS)


def chosen_device(word: str) -> str:
    """One of cpu and cuda; auto is CUDA where this onnxruntime was built for it and a driver is there."""
    if word != "auto":
        return word
    built = _PROVIDERS["cuda"] in _onnxruntime().get_available_providers()
    return "cuda" if built and _DRIVER.exists() else "cpu"


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a session's inputs and outputs lie. On a CPU that is the numpy arrays themselves, elsewhere copies."""

    device: str  # cpu or cuda
    shared: bool  # False on a CPU: copies all the same, which is how tests run the code of a GPU without one

    @staticmethod
    def of(device: str) -> "Memory":
        return Memory(device, shared=device == "cpu")

    def hold(self, array: NDArray[Any]) -> Any:
        """An OrtValue of the array, C-contiguous: its own memory if shared, else a copy on the device."""
        value = _onnxruntime().OrtValue
        return value.ortvalue_from_numpy(array if self.shared else array.copy(), self.device, 0)

    def space(self, array: NDArray[Any]) -> Any:
        """An OrtValue that takes what fetch then brings into the array."""
        if self.shared:
            return self.hold(array)
        value = _onnxruntime().OrtValue
        return value.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, self.device, 0)

    def fetch(self, value: Any, array: NDArray[Any]) -> None:
        if not self.shared:
            np.copyto(array, value.numpy())


def _onnxruntime() -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise Unavailable("the onnx engine needs onnxruntime: pip install 'headrace[serve]'") from error
    return onnxruntime
