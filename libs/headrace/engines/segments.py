"""Cuts a written graph into segments of consecutive layers, so that the KV of some can travel while others compute.

The segments read the same data file; only the small model files are written again.
"""

import itertools
import os
import tempfile
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from headrace.engines.graph import MODEL_FILE


def layer_ranges(layers: int, count: int) -> list[range]:
    """The layers of each of `count` segments, as even as they go."""
    assert 1 <= count <= layers
    ends = [layers * part // count for part in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def write_segments(folder: Path, layers: int, count: int) -> list[Path]:
    """The model files of the segments, written beside model.onnx if they are not there.

    What crosses a border behind layer i is x{i} and change{i}, [B, T, width]: the residual and what is yet to be added.
    """
    if count == 1:
        return [folder / MODEL_FILE]
    paths = [folder / f"segment-{part}-of-{count}.onnx" for part in range(count)]
    if not all(path.exists() for path in paths):
        whole = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
        for path, kept in zip(paths, layer_ranges(layers, count), strict=True):
            _write_whole(_cut(whole, kept, layers), path)
    return paths


def _cut(whole: ModelProto, kept: range, layers: int) -> ModelProto:
    graph = whole.graph
    begin = 0 if kept.start == 0 else _producer(graph, f"change{kept.start - 1}") + 1
    end = len(graph.node) if kept.stop == layers else _producer(graph, f"change{kept.stop - 1}") + 1
    nodes = graph.node[begin:end]
    read = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    inputs = [value for value in graph.input if value.name in read]
    inputs += _border(graph, kept.start) if kept.start else []
    outputs = [value for value in graph.output if value.name in made]
    outputs += _border(graph, kept.stop) if kept.stop < layers else []
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    cut = helper.make_graph(list(nodes), f"layers {kept.start} to {kept.stop - 1}", inputs, outputs, weights)
    return helper.make_model(cut, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)


def border_names(layer: int) -> list[str]:
    """What goes from layer - 1 to layer."""
    return [f"x{layer - 1}", f"change{layer - 1}"]


def _border(graph: GraphProto, layer: int) -> list[onnx.ValueInfoProto]:
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "T", width]) for name in border_names(layer)]


def _producer(graph: GraphProto, name: str) -> int:
    return next(index for index, node in enumerate(graph.node) if name in node.output)


def _write_whole(model: ModelProto, path: Path) -> None:
    """Workers may start together: each renames a file of its own, and all are alike."""
    handle, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(model.SerializeToString())
    Path(draft).rename(path)
