"""One ONNX graph of a Llama-type LLM with explicit KV: the same graph prefills, prefills on a past, and decodes.

Attention is ONNX Runtime's GroupQueryAttention: it rotates, attends and appends in one node, and appends in place where
the KV that comes out is bound to the memory of the KV that went in. On CUDA it takes no float32, so there attention is
spelled out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from headrace.engines.families.llama import LlamaShape, Weights
from headrace.engines.packed import BLOCK, Blocks

GRAPH_VERSION = 4  # part of the cache key: raise it whenever the graph changes
MODEL_FILE, DATA_FILE, EMBED_FILE = "model.onnx", "model.data", "embed.npy"
MASKED = -1e9  # added to a score that must not count; exp of it is exactly 0
_OPSET, _IR_VERSION = 17, 8
_CONTRIB = "com.microsoft"
_ALIGNMENT = 4096  # external tensors start at page boundaries, so that they can be mapped

Array = NDArray[np.float32]


def kv_names(layers: int) -> list[str]:
    """Inputs in the order of a KV array's first axis: keys and values of layer 0, of layer 1, ..."""
    return [f"{kind}{layer}" for layer in range(layers) for kind in ("k", "v")]


def write_graph(
    shape: LlamaShape,
    weights: Weights,
    folder: Path,
    packed: Mapping[str, Blocks] | None = None,
    *,
    accuracy: int = 1,
    fused: bool = True,
) -> None:
    """Write model.onnx, model.data and embed.npy (the table that turns tokens into x).

    Inputs: x [B, T, width]; pos [B, T] rotary positions; last [n] the rows of the flattened [B * T] whose logits are
    wanted; seen [B] positions of each row's KV when this step ends, less one; total [1] the most of them, plus one;
    bias [1, 1, T, total], 0 or MASKED, on top of the causal mask; k_i, v_i [B, kv_heads, S, head_width].
    Outputs: logits [n, vocab]; all_k_i, all_v_i [B, kv_heads, max(S, total), head_width], past and new.
    Not fused, in place of seen and bias: slot [B, kv_heads, T, 3] where in k_i and v_i the new KV goes; mask
    [B, 1, group * T, total], 0 or MASKED; and S is at least total.
    B > 1 takes T = 1; head_width is a multiple of 16 (both are the operator's).
    Weights in `packed` multiply as the blocks they are; accuracy 1 keeps activations in float32, 4 rounds them to int8.
    """
    with (folder / DATA_FILE).open("wb") as data:
        model = _Builder(shape, weights, packed or {}, accuracy, fused, _ExternalData(data)).model()
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

    def tensor(self, name: str, values: NDArray[Any]) -> TensorProto:
        offset = self._file.tell()
        raw = np.ascontiguousarray(values).tobytes()
        self._file.write(raw + bytes(-len(raw) % _ALIGNMENT))
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA_FILE), ("offset", offset), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class _Builder:
    """Appends nodes in order; every method returns the name of what it computes."""

    def __init__(
        self,
        shape: LlamaShape,
        weights: Weights,
        packed: Mapping[str, Blocks],
        accuracy: int,
        fused: bool,
        external: _ExternalData,
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._packed = packed
        self._accuracy = accuracy
        self._fused = fused
        self._external = external
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._sums: dict[str, str] = {}  # by input: its sums over blocks, which every packed weight on it shares

    def model(self) -> ModelProto:
        shape, weights = self._shape, self._weights
        cos, sin = rotary_tables(shape)
        self._cos, self._sin = self._big("cos", cos), self._big("sin", sin)
        x, change = "x", ""
        for layer in range(shape.layers):
            x, change = self._layer(x, change, layer)
        row = self._op("Gather", self._op("Reshape", x, self._ints(-1, shape.width)), "last", axis=0)
        changed = self._op("Gather", self._op("Reshape", change, self._ints(-1, shape.width)), "last", axis=0)
        _, normed = self._add_norm(row, changed, "model.norm.weight")
        head = "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"
        self._linear(normed, head, output="logits")
        return self._finish(len(weights[head]))

    def _layer(self, x: str, change: str, layer: int) -> tuple[str, str]:
        """The residual and what is to be added to it, which the next norm does: x{layer} and change{layer}."""
        name = f"model.layers.{layer}."
        x, h = self._add_norm(x, change, name + "input_layernorm.weight")
        joined = self._linear(h, *(f"{name}self_attn.{part}_proj.weight" for part in "qkv"))
        attended = self._fused_attention(joined, layer) if self._fused else self._plain_attention(joined, layer)
        change = self._linear(attended, name + "self_attn.o_proj.weight")
        x, h = self._add_norm(x, change, name + "post_attention_layernorm.weight", added=f"x{layer}")
        gate = self._op("QuickGelu", self._linear(h, name + "mlp.gate_proj.weight"), domain=_CONTRIB, alpha=1.0)  # SiLU
        inner = self._op("Mul", gate, self._linear(h, name + "mlp.up_proj.weight"))
        return x, self._linear(inner, name + "mlp.down_proj.weight", output=f"change{layer}")

    def _fused_attention(self, joined: str, layer: int) -> str:
        shape = self._shape
        inputs = [joined, "", "", f"k{layer}", f"v{layer}", "seen", "total", self._cos, self._sin, "pos", "bias"]
        outputs = [f"n{len(self._nodes)}", f"all_k{layer}", f"all_v{layer}"]
        attributes: dict[str, Any] = {"num_heads": shape.query_heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
        scale = shape.head_width**-0.5
        self._nodes.append(
            helper.make_node("GroupQueryAttention", inputs, outputs, domain=_CONTRIB, scale=scale, **attributes)
        )
        return outputs[0]

    def _plain_attention(self, joined: str, layer: int) -> str:
        """The new KV goes to its places first; queries that share a KV head are rows of it, so none is repeated."""
        shape = self._shape
        query, kv = shape.query_heads * shape.head_width, shape.kv_heads * shape.head_width
        q, k, v = self._split(joined, query, kv, kv)
        q, k = (self._op("RotaryEmbedding", z, "pos", self._cos, self._sin, domain=_CONTRIB) for z in (q, k))
        k, v = (self._op("Transpose", self._heads(z, shape.kv_heads), perm=[0, 2, 1, 3]) for z in (k, v))
        k = self._op("ScatterND", f"k{layer}", "slot", k, output=f"all_k{layer}")
        v = self._op("ScatterND", f"v{layer}", "slot", v, output=f"all_v{layer}")
        k, v = (self._op("Slice", z, self._zero(), "total", self._axis_of_positions()) for z in (k, v))
        q = self._op("Transpose", self._heads(q, shape.query_heads), perm=[0, 2, 1, 3])
        q = self._op("Reshape", q, self._ints(0, shape.kv_heads, -1, shape.head_width))
        q = self._op("Mul", q, self._constant("scale", np.array(shape.head_width**-0.5, np.float32)))
        score = self._op("Add", self._op("MatMul", q, self._op("Transpose", k, perm=[0, 1, 3, 2])), "mask")
        mixed = self._op("MatMul", self._op("Softmax", score, axis=-1), v)
        by_head = self._op("Reshape", mixed, self._ints(0, shape.query_heads, -1, shape.head_width))
        return self._op("Reshape", self._op("Transpose", by_head, perm=[0, 2, 1, 3]), self._ints(0, 0, query))

    def _heads(self, z: str, heads: int) -> str:
        return self._op("Reshape", z, self._ints(0, 0, heads, self._shape.head_width))

    def _split(self, z: str, *sizes: int) -> list[str]:
        outputs = [f"n{len(self._nodes)}_{part}" for part in range(len(sizes))]
        self._nodes.append(helper.make_node("Split", [z, self._ints(*sizes)], outputs, axis=-1))
        return outputs

    def _zero(self) -> str:
        return self._constant("from_0", np.zeros(1, np.int32))

    def _axis_of_positions(self) -> str:
        return self._constant("axis_2", np.array([2], np.int32))

    def _add_norm(self, x: str, change: str, weight: str, added: str = "") -> tuple[str, str]:
        """x + change, and its root mean square norm."""
        scale, epsilon = self._big(weight, self._weights[weight]), self._shape.norm_epsilon
        if not change:
            return x, self._op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=epsilon, stash_type=1)
        normed, added = f"n{len(self._nodes)}", added or f"n{len(self._nodes)}_sum"
        outputs = [normed, "", "", added]
        kind = "SkipSimplifiedLayerNormalization"
        self._nodes.append(helper.make_node(kind, [x, change, scale], outputs, domain=_CONTRIB, epsilon=epsilon))
        return added, normed

    def _linear(self, x: str, *names: str, output: str = "") -> str:
        """x @ W.T of the weights one behind another."""
        if all(name in self._packed for name in names):
            return self._packed_linear(
                x, "+".join(names), Blocks.joined([self._packed[name] for name in names]), output
            )
        values = np.concatenate([self._weights[name] for name in names])
        return self._op("MatMul", x, self._big("+".join(names), values.T), output=output)

    def _packed_linear(self, x: str, name: str, blocks: Blocks, output: str) -> str:
        """W = scale * (quant - middle) + offset by blocks, so x @ W.T = x @ (scale * (quant - middle)).T plus the sums
        of x over each block times the block's offset. (A zero point that is no integer would say the same in one node,
        but ONNX Runtime then unpacks the whole weight at every call.)
        """
        rows, columns = blocks.quants.shape
        attributes = {
            "K": columns,
            "N": rows,
            "bits": blocks.bits,
            "block_size": BLOCK,
            "accuracy_level": self._accuracy,
        }
        inputs = (x, self._big(name, blocks.packed()), self._big(name + ".scale", blocks.scale))
        if blocks.offset is None:
            return self._op("MatMulNBits", *inputs, domain=_CONTRIB, output=output, **attributes)
        product = self._op("MatMulNBits", *inputs, domain=_CONTRIB, **attributes)
        offset = self._op("MatMul", self._block_sums(x, columns), self._big(name + ".offset", blocks.offset.T))
        return self._op("Add", product, offset, output=output)

    def _block_sums(self, x: str, columns: int) -> str:
        if x not in self._sums:
            by_block = self._op("Reshape", x, self._ints(0, 0, columns // BLOCK, BLOCK))
            self._sums[x] = self._op("ReduceSum", by_block, self._ints(-1), keepdims=0)
        return self._sums[x]

    def _op(self, kind: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def _big(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._initializers:
            self._initializers[name] = self._external.tensor(name, values)
        return name

    def _ints(self, *values: int) -> str:
        return self._constant("i_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(values, name)
        return name

    def _finish(self, vocab: int) -> ModelProto:
        shape = self._shape
        names = kv_names(shape.layers)
        past: list[str | int] = ["B", shape.kv_heads, "S", shape.head_width]
        whole: list[str | int] = ["B", shape.kv_heads, "E", shape.head_width]
        floats: dict[str, list[str | int]] = {"x": ["B", "T", shape.width], **dict.fromkeys(names, past)}
        longs: dict[str, list[str | int]] = {"pos": ["B", "T"], "last": ["n"]}
        integers: dict[str, list[str | int]] = {"total": [1]}
        if self._fused:
            floats["bias"], integers["seen"] = [1, 1, "T", "total"], ["B"]
        else:
            floats["mask"], longs["slot"] = ["B", 1, "rows", "total"], ["B", shape.kv_heads, "T", 3]
        inputs = [
            *_infos(floats, TensorProto.FLOAT),
            *_infos(longs, TensorProto.INT64),
            *_infos(integers, TensorProto.INT32),
        ]
        outputs: dict[str, list[str | int]] = {"logits": ["n", vocab], **{f"all_{name}": whole for name in names}}
        graph = helper.make_graph(
            self._nodes, "llama", inputs, _infos(outputs, TensorProto.FLOAT), list(self._initializers.values())
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _infos(shapes: Mapping[str, list[str | int]], kind: int) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, kind, axes) for name, axes in shapes.items()]
