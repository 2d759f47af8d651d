"""Trained networks as ONNX, and what is known of them as JSON beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from headrace.control.thermal.context import FEATURES, STEPS
from headrace.control.thermal.network import INPUTS, OUTPUT

_OPSET = 17
PACKED_LEAST = 4_096  # entries of a matrix that is worth packing


def export(served: nn.Module, path: Path) -> None:
    """float32; any number of rows."""
    example = torch.full((2, STEPS), -0.1), torch.ones(2, STEPS, len(FEATURES)), torch.ones(2, STEPS, 1)
    torch.onnx.export(
        served.eval(),
        example,
        str(path),
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_axes={name: {0: "gpus"} for name in (*INPUTS, OUTPUT)},
        opset_version=_OPSET,
        dynamo=False,
    )


def pack(path: Path) -> None:
    """Keep matrices in 8 bits, one scale an output. They are multiplied in float32: activations of language models have
    outliers that 8 bits lose, and ONNX Runtime unpacks once, when it loads the graph."""
    model = onnx.load(str(path))
    graph, unpacking = model.graph, []
    products = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "Gemm")}
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.name in products and values.ndim == 2 and values.size >= PACKED_LEAST:
            unpacking += _packed(graph, tensor, values)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*unpacking, *rest])
    onnx.save(model, str(path))


def _packed(graph: Any, tensor: Any, values: np.ndarray) -> list[Any]:
    """The nodes that make the matrix again under its name."""
    scale = np.maximum(np.abs(values).max(axis=0, keepdims=True), 1e-12).astype(np.float32) / 127.0
    small = np.rint(values / scale).astype(np.int8)
    name = tensor.name
    graph.initializer.remove(tensor)
    graph.initializer.extend(
        [numpy_helper.from_array(small, f"{name}/packed"), numpy_helper.from_array(scale, f"{name}/scale")]
    )
    return [
        helper.make_node("Cast", [f"{name}/packed"], [f"{name}/single"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/single", f"{name}/scale"], [name]),
    ]
