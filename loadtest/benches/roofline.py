"""What this machine can do at most, measured now: bytes read a second, and float operations of a matrix product."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from headrace.engines.runtime import open_session

_READ_BYTES = 256 << 20  # far beyond any cache
_SIDE = 1024
_ROUNDS = 7


def read_bytes_per_s(threads: int) -> float:
    """Summing an array too large for the caches, a part in each thread (numpy lets go of the interpreter's lock)."""
    parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), threads)

    def read(pool: ThreadPoolExecutor) -> float:
        started = perf_counter()
        list(pool.map(np.add.reduce, parts))
        return perf_counter() - started

    with ThreadPoolExecutor(threads) as pool:
        return _READ_BYTES / min(read(pool) for _ in range(_ROUNDS))


def gemm_flop_per_s(threads: int) -> float:
    """A square matrix product with prepacked weights, in ONNX Runtime, as the engine's own are."""
    weight = np.ones((_SIDE, _SIDE), np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "gemm",
        [value("x", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [value("y", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString(), threads)

    def multiply() -> float:
        started = perf_counter()
        session.run(None, {"x": weight})
        return perf_counter() - started

    return 2 * _SIDE**3 / min(multiply() for _ in range(_ROUNDS))
