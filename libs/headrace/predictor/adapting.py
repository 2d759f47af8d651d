"""Puts low-rank corrections into the encoder's graph: the package's weights stay as they are, ours are small.

LoRA (Hu et al., 2021, equation 3): W x + B A x. ONNX Runtime folds the sum into one matrix when it loads the graph, so
serving costs nothing more.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Deltas = Mapping[str, tuple[Array, Array]]  # layer name -> [in, rank], [rank, out]: added to its matrix [in, out]

LAYERS = 6
PARTS = (
    *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    *("intermediate.dense", "output.dense"),
)
_PREFIX, _BIAS = "inner.encoder.", ".bias"


def layer_name(layer: int, part: str) -> str:
    return f"layer.{layer}.{part}"


def load_deltas(source: Any) -> dict[str, tuple[Array, Array]]:
    """From a .npz of "<layer name>/a" and "<layer name>/b", kept in half precision."""
    with np.load(source) as arrays:
        names = [name.removesuffix("/a") for name in arrays.files if name.endswith("/a")]
        return {name: (_single(arrays[f"{name}/a"]), _single(arrays[f"{name}/b"])) for name in names}


def _single(values: NDArray[np.float16]) -> Array:
    return values.astype(np.float32)


def adapted(path: Path, deltas: Deltas) -> bytes:
    """The encoder's graph with the deltas in it.

    Raises:
        ValueError: the graph has no such layer: another version of the package.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    layers = dict(linears(model))
    if missing := deltas.keys() - layers.keys():
        raise ValueError(f"{path.name} has no layers {sorted(missing)}: it is not the encoder that was adapted")
    added = []
    for name, (a, b) in deltas.items():
        model.graph.initializer.extend(
            [numpy_helper.from_array(a, f"{name}/a"), numpy_helper.from_array(b, f"{name}/b")]
        )
        product = layers[name]
        added.append(helper.make_node("MatMul", [f"{name}/a", f"{name}/b"], [f"{name}/delta"]))
        added.append(helper.make_node("Add", [product.input[1], f"{name}/delta"], [f"{name}/adapted"]))
        product.input[1] = f"{name}/adapted"
    weights = [node for node in model.graph.node if _makes_weight(node)]
    rest = [node for node in model.graph.node if not _makes_weight(node)]
    del model.graph.node[:]
    model.graph.node.extend([*weights, *added, *rest])
    graph: bytes = model.SerializeToString()
    return graph


def linears(model: Any) -> Iterator[tuple[str, Any]]:
    """(layer name, its MatMul) of every dense layer: the bias that is added to the product has the name."""
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for product, bias in (node.input, reversed(node.input)):
            maker = makers.get(product)
            if bias.startswith(_PREFIX) and bias.endswith(_BIAS) and maker is not None and maker.op_type == "MatMul":
                yield bias.removeprefix(_PREFIX).removesuffix(_BIAS), maker


def _makes_weight(node: Any) -> bool:
    """A Cast or Mul that turns int8 weights to float32: they come before all else."""
    return node.name.endswith(("_cast", "_mul")) and not node.name.startswith("node_")
