"""What the families' exports share: a part's weights out of a checkpoint, a module into an ONNX file (torch).

Only the part is read: the tower of a large model is exported on a machine that could not hold the model.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from headrace.core.errors import Unavailable
from headrace.engines.families.directory import Directory

_OPSET = 17
Axes = Mapping[str, Mapping[int, str]]  # an input's or output's dynamic axes, by its name


class FusedAttention(torch.autograd.Function):
    """Full attention as one ONNX Runtime operator, which works tile by tile: memory grows with patches, not with
    their square (a picture of 4,096 patches and 16 heads: 0.1 GB instead of 1.1)."""

    @staticmethod
    def forward(_: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        return _joined(nn.functional.scaled_dot_product_attention(*(_heads(x, heads) for x in (query, key, value))))

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, heads: int) -> Any:
        fused = g.op("com.microsoft::MultiHeadAttention", query, key, value, num_heads_i=heads)
        return fused.setType(query.type())


def _heads(x: Tensor, heads: int) -> Tensor:
    """[batch, patches, width] -> [batch, heads, patches, head width]"""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


def load_part(directory: Directory, module: nn.Module, prefixes: Sequence[str]) -> Any:
    """The module with its weights in float32: those whose names begin with one of the prefixes (old and new files
    name parts differently).

    Raises:
        Unavailable: the checkpoint lacks a weight of the module, or has one of another shape.
    """
    found: dict[str, Tensor] = {}
    for file in sorted(directory.path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
                if prefix is not None:
                    found[name.removeprefix(prefix)] = tensors.get_tensor(name).float()
    try:
        module.load_state_dict(found)
    except RuntimeError as error:
        raise Unavailable(f"{directory.path}: {error}") from error
    return module.float().eval()


def write_graph(module: nn.Module, example: Mapping[str, Tensor], axes: Axes, graph: Path) -> None:
    """Trace a module that has no branches on its inputs' values; its one output is called rows.

    The tracer, not torch.export: it is done in seconds, and it takes operators of ONNX Runtime as they are.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding")
        torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            str(graph),
            input_names=list(example),
            output_names=["rows"],
            dynamic_axes={name: dict(numbers) for name, numbers in axes.items()},
            opset_version=_OPSET,
            custom_opsets={"com.microsoft": 1},
            dynamo=False,
        )
