"""The upper layers of the packaged text encoder in torch, with low-rank corrections that learn; the lower ones are run
once by ONNX Runtime.

The weights are the package's own int8 ones, so that what is learnt fits what is served.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from headrace.predictor.adapting import LAYERS, PARTS, layer_name, linears
from headrace.predictor.encoder import WIDTH

_HEADS, _EPSILON = 12, 1e-12
_HIDDEN_SCORE = -1e4


def lower_graph(path: Path, layers: int) -> bytes:
    """The encoder's graph cut behind its first layers: its output is what layer `layers` gets."""
    model = onnx.load(str(path))
    output = f"layer_norm_{2 * layers}"  # two a layer, and one behind the embeddings
    info = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["batch", "sequence", WIDTH])
    del model.graph.output[:]
    model.graph.output.append(info)
    graph: bytes = model.SerializeToString()
    return graph


class Weights:
    """The encoder's tensors by their Hugging Face names."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path))
        self._stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._matrices = {name: product.input[1] for name, product in linears(model)}

    def matrix(self, name: str) -> Tensor:
        """[out, in], as torch has it."""
        stored = self._matrices[name]
        return _tensor((self._stored[f"{stored}_q"] * self._stored[f"{stored}_scale"]).T)

    def vector(self, name: str) -> Tensor:
        return _tensor(self._stored[f"inner.encoder.{name}"])


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


class Adapted(nn.Module):
    """A frozen dense layer and its correction, which starts at zero."""

    def __init__(self, weights: Weights, name: str, rank: int) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("weight", weights.matrix(name))
        self.register_buffer("bias", weights.vector(f"{name}.bias"))
        outs, ins = self.weight.shape
        self.a = nn.Parameter(torch.randn(ins, rank) / math.sqrt(ins))
        self.b = nn.Parameter(torch.zeros(rank, outs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias) + (x @ self.a) @ self.b


class Layer(nn.Module):
    """One layer of BERT (Devlin et al., 2019)."""

    def __init__(self, weights: Weights, layer: int, rank: int) -> None:
        super().__init__()
        dense = {part: Adapted(weights, layer_name(layer, part), rank) for part in PARTS}
        self.query, self.key, self.value, self.output, self.inner, self.outer = dense.values()
        for i, part in enumerate(("attention.output.LayerNorm", "output.LayerNorm")):
            for kind in ("weight", "bias"):
                self.register_buffer(f"norm{i}_{kind}", weights.vector(f"layer.{layer}.{part}.{kind}"))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (_split(dense(x)) for dense in (self.query, self.key, self.value))
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self._norm(x + self.output(seen.transpose(1, 2).flatten(2)), 0)
        return self._norm(x + self.outer(functional.gelu(self.inner(x))), 1)

    def _norm(self, x: Tensor, which: int) -> Tensor:
        weight, bias = (getattr(self, f"norm{which}_{kind}") for kind in ("weight", "bias"))
        return functional.layer_norm(x, (WIDTH,), weight, bias, _EPSILON)


def _split(x: Tensor) -> Tensor:
    return x.unflatten(2, (_HEADS, WIDTH // _HEADS)).transpose(1, 2)


class Upper(nn.Module):
    """states [n, T, WIDTH] behind the first `lower` layers, mask [n, T] -> the last layer's states."""

    def __init__(self, path: Path, lower: int, rank: int) -> None:
        super().__init__()
        weights = Weights(path)
        self.layers = nn.ModuleList(Layer(weights, layer, rank) for layer in range(lower, LAYERS))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        bias = ((mask - 1.0) * -_HIDDEN_SCORE)[:, None, None]
        for layer in self.layers:
            states = layer(states, bias)
        return states

    def deltas(self) -> dict[str, NDArray[np.float16]]:
        """What headrace.predictor.adapting.load_deltas reads."""
        dense = [module for module in self.modules() if isinstance(module, Adapted)]
        return {f"{one.name}/{kind}": getattr(one, kind).detach().half().numpy() for one in dense for kind in "ab"}
