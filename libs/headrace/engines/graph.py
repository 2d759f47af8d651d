"""One ONNX graph of a Llama-type LLM with explicit KV: the same graph prefills, prefills on a past, and decodes.

Attention scores against past and new KV are joined before one softmax, so the past is never copied; the query
heads of a group become rows of its KV head, so grouped KV is never repeated. Only the new KV comes out.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from headrace.engines.families.llama import LlamaShape, Weights

GRAPH_VERSION = 2  # part of the cache key: raise it whenever the graph changes
MODEL_FILE, DATA_FILE, EMBED_FILE = "model.onnx", "model.data", "embed.npy"
MASKED = -1e9  # added to a score that must not count; exp of it is exactly 0
_OPSET, _IR_VERSION = 17, 8
_ALIGNMENT = 4096  # external tensors start at page boundaries, so that they can be mapped

Array = NDArray[np.float32]


def kv_names(layers: int) -> list[str]:
    """Inputs in the order of a KV array's first axis: keys and values of layer 0, of layer 1, ..."""
    return [f"{kind}{layer}" for layer in range(layers) for kind in ("k", "v")]


def write_graph(shape: LlamaShape, weights: Weights, folder: Path) -> None:
    """Write model.onnx, model.data and embed.npy (the table that turns tokens into x).

    Inputs: x [B, T, width]; pos [B, T] rotary positions; last [n] the rows of the flattened [B * T]
    whose logits are wanted;
    pmask [B, 1, 1, S] and cmask [1, 1, group * T, T], 0 or MASKED; k_i, v_i [B, kv_heads, S, head_width].
    Outputs: logits [n, vocab]; new_k_i, new_v_i [B, kv_heads, T, head_width].
    """
    with (folder / DATA_FILE).open("wb") as data:
        model = _Builder(shape, weights, _ExternalData(data)).model()
    onnx.save(model, str(folder / MODEL_FILE))
    np.save(folder / EMBED_FILE, weights["model.embed_tokens.weight"])


def rotary_tables(shape: LlamaShape) -> tuple[Array, Array]:
    """Cosine and sine [context, head_width / 2], in float32 as Hugging Face computes them (RoFormer, eq. 15)."""
    half = np.arange(0, shape.head_width, 2, dtype=np.float32) / np.float32(shape.head_width)
    frequency = np.float32(1) / np.float32(shape.rope_base) ** half
    angle = np.arange(shape.context_tokens, dtype=np.float32)[:, None] * frequency
    return np.cos(angle), np.sin(angle)


class _ExternalData:
    """Writes tensors beside the model: protobuf ends at 2 GB, and mapped weights cost no start-up time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def tensor(self, name: str, values: Array) -> TensorProto:
        offset = self._file.tell()
        raw = np.ascontiguousarray(values, dtype=np.float32).tobytes()
        self._file.write(raw + bytes(-len(raw) % _ALIGNMENT))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA_FILE), ("offset", offset), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class _Builder:
    """Appends nodes in order; every method returns the name of what it computes."""

    def __init__(self, shape: LlamaShape, weights: Weights, external: _ExternalData) -> None:
        self._shape = shape
        self._weights = weights
        self._external = external
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def model(self) -> ModelProto:
        shape, weights = self._shape, self._weights
        cos, sin = rotary_tables(shape)
        self._cos, self._sin = (self._rotary(name, table) for name, table in (("cos", cos), ("sin", sin)))
        self._past = self._op("Slice", self._op("Shape", "k0"), self._ints(2), self._ints(3))  # S
        x = "x"
        for layer in range(shape.layers):
            x = self._layer(x, layer)
        row = self._op("Gather", self._op("Reshape", x, self._ints(-1, shape.width)), "last", axis=0)
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        normed = self._norm(row, "model.norm.weight")
        self._op("MatMul", normed, self._big("head", head.T), output="logits")
        return self._finish(head.shape[0])

    def _layer(self, x: str, layer: int) -> str:
        name = f"model.layers.{layer}."
        attended = self._attention(self._norm(x, name + "input_layernorm.weight"), layer)
        x = self._op("Add", x, self._linear(attended, name + "self_attn.o_proj.weight"))
        h = self._norm(x, name + "post_attention_layernorm.weight")
        gate = self._linear(h, name + "mlp.gate_proj.weight")
        silu = self._op("Mul", gate, self._op("Sigmoid", gate))
        up = self._linear(h, name + "mlp.up_proj.weight")
        return self._op("Add", x, self._linear(self._op("Mul", silu, up), name + "mlp.down_proj.weight"))

    def _attention(self, h: str, layer: int) -> str:
        shape = self._shape
        q, k, v = self._heads(h, layer)
        q = self._op("Reshape", q, self._ints(0, shape.kv_heads, -1, shape.head_width))
        q = self._op("Mul", q, self._floats(shape.head_width**-0.5))
        past = self._op("Add", self._op("MatMul", q, self._turned(f"k{layer}")), "pmask")
        new = self._op("Add", self._op("MatMul", q, self._turned(k)), "cmask")
        weight = self._op("Softmax", self._op("Concat", past, new, axis=-1), axis=-1)
        on_past = self._op("Slice", weight, self._ints(0), self._past, self._ints(3))
        on_new = self._op("Slice", weight, self._past, self._ints(2**62), self._ints(3))
        mixed = self._op("Add", self._op("MatMul", on_past, f"v{layer}"), self._op("MatMul", on_new, v))
        by_head = self._op("Reshape", mixed, self._ints(0, shape.query_heads, -1, shape.head_width))
        by_row = self._op("Transpose", by_head, perm=[0, 2, 1, 3])
        return self._op("Reshape", by_row, self._ints(0, 0, shape.query_heads * shape.head_width))

    def _heads(self, h: str, layer: int) -> tuple[str, str, str]:
        """Queries, keys and values [B, heads, T, head_width], queries and keys rotated."""
        shape, name = self._shape, f"model.layers.{layer}.self_attn."
        joined = np.concatenate([self._weights[f"{name}{part}_proj.weight"] for part in "qkv"])
        z = self._op("MatMul", h, self._big(name + "qkv", joined.T))
        z = self._op("Reshape", z, self._ints(0, 0, shape.query_heads + 2 * shape.kv_heads, shape.head_width))
        qk, v = self._split(z, 2, shape.query_heads + shape.kv_heads, shape.kv_heads)
        low, high = self._split(qk, 3, shape.head_width // 2, shape.head_width // 2)
        real = self._op("Sub", self._op("Mul", low, self._cos), self._op("Mul", high, self._sin))
        imaginary = self._op("Add", self._op("Mul", high, self._cos), self._op("Mul", low, self._sin))
        q, k = self._split(self._op("Concat", real, imaginary, axis=-1), 2, shape.query_heads, shape.kv_heads)
        k = self._op("Transpose", k, perm=[0, 2, 1, 3], output=f"new_k{layer}")
        v = self._op("Transpose", v, perm=[0, 2, 1, 3], output=f"new_v{layer}")
        return self._op("Transpose", q, perm=[0, 2, 1, 3]), k, v

    def _norm(self, x: str, weight: str) -> str:
        """Root mean square norm, in the pattern that ONNX Runtime fuses."""
        mean = self._op("ReduceMean", self._op("Pow", x, self._floats(2.0)), axes=[-1], keepdims=1)
        root = self._op("Sqrt", self._op("Add", mean, self._floats(self._shape.norm_epsilon)))
        return self._op("Mul", self._op("Div", x, root), self._big(weight, self._weights[weight]))

    def _linear(self, x: str, weight: str) -> str:
        return self._op("MatMul", x, self._big(weight, self._weights[weight].T))

    def _rotary(self, name: str, table: Array) -> str:
        return self._op("Unsqueeze", self._op("Gather", self._big(name, table), "pos"), self._ints(2))

    def _turned(self, keys: str) -> str:
        return self._op("Transpose", keys, perm=[0, 1, 3, 2])

    def _split(self, x: str, axis: int, *sizes: int) -> list[str]:
        outputs = [f"n{len(self._nodes)}_{part}" for part in range(len(sizes))]
        self._nodes.append(helper.make_node("Split", [x, self._ints(*sizes)], outputs, axis=axis))
        return outputs

    def _op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _big(self, name: str, values: Array) -> str:
        if name not in self._initializers:
            self._initializers[name] = self._external.tensor(name, values)
        return name

    def _ints(self, *values: int) -> str:
        return self._small("i_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _floats(self, value: float) -> str:
        return self._small(f"f_{value!r}", np.array(value, np.float32))

    def _small(self, name: str, values: NDArray[np.generic]) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(values, name)
        return name

    def _finish(self, vocab: int) -> ModelProto:
        shape = self._shape
        kv: list[str | int] = ["B", shape.kv_heads, "S", shape.head_width]
        floats: dict[str, list[str | int]] = {
            "x": ["B", "T", shape.width],
            "pmask": ["B", 1, 1, "S"],
            "cmask": [1, 1, "rows", "T"],
            **dict.fromkeys(kv_names(shape.layers), kv),
        }
        integers: dict[str, list[str | int]] = {"pos": ["B", "T"], "last": ["n"]}
        outputs: dict[str, list[str | int]] = {
            "logits": ["n", vocab],
            **{f"new_{name}": ["B", shape.kv_heads, "T", shape.head_width] for name in kv_names(shape.layers)},
        }
        inputs = _infos(floats, TensorProto.FLOAT) + _infos(integers, TensorProto.INT64)
        graph = helper.make_graph(
            self._nodes, "llama", inputs, _infos(outputs, TensorProto.FLOAT), list(self._initializers.values())
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _infos(shapes: dict[str, list[str | int]], kind: int) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, kind, axes) for name, axes in shapes.items()]
