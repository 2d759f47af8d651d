"""Writes the trained adapter as the assets that serving reads: an ONNX encoder, the prefix KV and a manifest.

Weights are stored in half precision and cast back when the graph is loaded: half the size, the same kernels.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from headrace.modalities.image import SIDE
from headrace.modalities.mel import ROW_FRAMES
from headrace.training.hearing import Reader, fold
from headrace.training.prefix import Adapter
from headrace.training.scenes import Listener
from headrace.training.tower import Tower
from headrace.training.whisper import MELS, WhisperEncoder

_SMALL = 256  # values; smaller tensors stay in single precision
_OPSET = 17


class _Encoder(nn.Module):
    def __init__(self, tower: Tower, adapter: Adapter) -> None:
        super().__init__()
        self.tower = tower
        self.adapter = adapter

    def forward(self, pixels: Tensor) -> Tensor:
        return self.adapter.rows(self.tower(pixels))


def export(tower: Tower, adapter: Adapter, manifest: dict[str, object], out: Path) -> None:
    """Write image_encoder.onnx, image_prefix.npz and manifest.json into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    graph = out / "image_encoder.onnx"
    torch.onnx.export(
        _Encoder(tower, adapter).eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        str(graph),
        input_names=["pixels"],
        output_names=["rows"],
        dynamic_axes={"pixels": {0: "n"}, "rows": {0: "n"}},
        opset_version=_OPSET,
        dynamo=False,
    )
    onnx.save(_halve(onnx.load(str(graph))), str(graph))
    np.savez(out / "image_prefix.npz", kv=adapter.past().detach().half().numpy())
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


class _Hearing(nn.Module):
    def __init__(self, whisper: WhisperEncoder, reader: Reader, listener: Listener) -> None:
        super().__init__()
        self.whisper = whisper
        self.reader = reader
        self.listener = listener

    def forward(self, mel: Tensor) -> Tensor:
        return self.listener.rows(*self.reader(fold(self.whisper(mel))))


def export_listener(
    whisper: WhisperEncoder, reader: Reader, listener: Listener, manifest: dict[str, object], out: Path
) -> None:
    """Write audio_encoder.onnx, media_prefix.npz and audio_manifest.json into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    graph = out / "audio_encoder.onnx"
    torch.onnx.export(
        _Hearing(whisper, reader, listener).eval(),
        (torch.zeros(1, MELS, 8 * ROW_FRAMES),),
        str(graph),
        input_names=["mel"],
        output_names=["rows"],
        dynamic_axes={"mel": {0: "n", 2: "frames"}, "rows": {0: "n", 1: "rows"}},
        opset_version=_OPSET,
        dynamo=False,
        do_constant_folding=False,  # folding would store Whisper's 8-bit matrices as floats
    )
    onnx.save(_halve(onnx.load(str(graph))), str(graph))
    np.savez(out / "media_prefix.npz", kv=listener.past().detach().half().numpy())
    (out / "audio_manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every large float32 initializer becomes float16 behind a Cast."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model
