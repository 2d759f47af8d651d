"""Trained networks as ONNX graphs, in float32 or in 8 bits."""

import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from headrace.control.thermal.context import FEATURES, STEPS
from headrace.control.thermal.network import INPUTS, OUTPUT

_OPSET = 17


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


def quantise(path: Path) -> None:
    """Matrices in 8 bits, one scale an output; what they are multiplied with is made 8 bits on the way."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        quantize_dynamic(str(path), str(made), weight_type=QuantType.QInt8, per_channel=True)
        path.write_bytes(made.read_bytes())
