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
