"""The ONNX graph of a Llama-type LLM as functions of numpy arrays: embed, prefill, decode."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import Unavailable
from headrace.engines.artifacts import build_once, progress
from headrace.engines.families.llama import Checkpoint, LlamaShape, Weights
from headrace.engines.graph import EMBED_FILE, GRAPH_VERSION, MASKED, write_graph
from headrace.engines.kvcache import Group, Kv
from headrace.engines.packed import Blocks, rounded
from headrace.engines.runtime import Memory, open_session
from headrace.engines.sampling import Logits
from headrace.engines.segments import layer_ranges, write_segments

Rows = NDArray[np.float32]  # embeddings [tokens, width]
# Called with the slice of the KV arrays that are done. Calls come in order and cover every array once.
LayersDone = Callable[[slice], None]


def graph_folder(checkpoint: Checkpoint, root: Path, weights: str = "fp32", *, fused: bool = True) -> Path:
    """Where the checkpoint's graph lies; built if it is not there.

    Weights: "fp32"; "q4": the checkpoint's own 4-bit blocks, multiplied and added up in float32; "int8": the
    checkpoint's blocks, or 8-bit ones where it has none, with activations rounded to int8.

    Raises:
        Unavailable: q4 of a checkpoint that has no 4-bit blocks.
    """
    identity = f"{checkpoint.fingerprint} graph {GRAPH_VERSION}" + ("" if weights == "fp32" else f" {weights}")
    identity += "" if fused else " plain"
    folder = root / f"{checkpoint.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def build(draft: Path) -> None:
        progress(f"preparing {checkpoint.name} for its first start on this machine: reading weights")
        values = checkpoint.load_weights()
        packed = _packed(checkpoint, values, weights)
        progress(f"writing the graph to {folder}")
        write_graph(checkpoint.shape, values, draft, packed, accuracy=4 if weights == "int8" else 1, fused=fused)
        progress(f"{checkpoint.name} is prepared")

    return build_once(folder, build)


def _packed(checkpoint: Checkpoint, values: Weights, weights: str) -> dict[str, Blocks]:
    """Which weights multiply as blocks."""
    own = checkpoint.load_packed() if checkpoint.load_packed and weights != "fp32" else {}
    if weights == "int8":
        return {name: own.get(name) or rounded(value) for name, value in values.items() if value.ndim == 2}
    four = {name: blocks for name, blocks in own.items() if blocks.bits == 4}  # of 8 bits, float32 is the faster
    if weights == "q4" and not four:
        raise Unavailable(f"{checkpoint.name} has no 4-bit weights of its own; there are fp32 and int8")
    return four


class Llama:
    """The graph as a function of numpy arrays: one session, or one after another for segments of the layers."""

    def __init__(
        self, folder: Path, shape: LlamaShape, threads: int, *, segments: int = 1, memory: Memory | None = None
    ) -> None:
        self.shape = shape
        self._memory = memory or Memory.of("cpu")
        self._embed = np.load(folder / EMBED_FILE, mmap_mode="r")
        self._threads = threads
        self._paths = write_segments(folder, shape.layers, segments)
        self._segments = self._open()
        self._fused = "seen" in {value.name for value in self._segments[0].session.get_inputs()}
        self._vocab: int = self._segments[-1].session.get_outputs()[0].shape[1]

    def _open(self) -> "list[_Segment]":
        ranges = layer_ranges(self.shape.layers, len(self._paths))
        return [
            _Segment(open_session(path, self._threads, self._memory.device), layers)
            for path, layers in zip(self._paths, ranges, strict=True)
        ]

    def park(self) -> None:
        """On a CPU a session's weights are in host memory as it is; a device's come back from the file's pages."""
        if not self._memory.shared:
            self._segments = []

    def unpark(self) -> None:
        if not self._segments:
            self._segments = self._open()

    def embed(self, tokens: Sequence[int]) -> Rows:
        return np.asarray(self._embed[np.asarray(tokens)])

    def prefill(self, rows: Rows, kv: Kv, start: int, layers_done: LayersDone | None = None) -> Logits:
        """Embeddings behind the first `start` positions of kv, which has room for theirs and gets them in place.

        Logits [1, vocab] of the last one.
        """
        values, total = [self._memory.hold(array[None]) for array in kv], start + len(rows)

        def done(arrays: slice) -> None:
            for value, array in zip(values[arrays], kv[arrays], strict=True):
                self._memory.fetch(value, array[None])
            if layers_done is not None:
                layers_done(arrays)

        return self._run(
            self._bind(values, values),
            done,
            x=rows[None],
            pos=np.arange(start, total)[None],
            last=np.array([len(rows) - 1]),
            seen=np.array([total - 1], np.int32),
            total=np.array([total], np.int32),
            bias=np.zeros((1, 1, len(rows), total), np.float32),
        )

    def prefill_packed(self, prompts: Sequence[Rows], past: Kv) -> tuple[Logits, Kv]:
        """Prompts packed one behind another in one row, each behind the same past and blind to the others.

        Logits [len(prompts), vocab] of the last token of each; new KV [arrays, kv_heads, all tokens, head_width] in
        the order of the prompts.
        """
        sizes, start = [len(prompt) for prompt in prompts], past.shape[2]
        pos = start + np.concatenate([np.arange(size) for size in sizes])
        unseen = 0 if start else 1  # without a past the graph would count positions itself
        first, total = start + unseen, start + unseen + sum(sizes)
        whole = np.empty((*past.shape[:2], total, past.shape[3]), np.float32)
        whole[:, :, :start], whole[:, :, start:first] = past, 0
        values = [self._memory.hold(array[None]) for array in whole]
        logits = self._run(
            self._bind(values, values),
            x=np.concatenate(prompts)[None],
            pos=pos[None],
            last=np.cumsum(sizes) - 1,
            seen=np.array([total - 1], np.int32),
            total=np.array([total], np.int32),
            bias=_apart(sizes, first, unseen),
        )
        for value, array in zip(values, whole, strict=True):
            self._memory.fetch(value, array[None])
        return logits, whole[:, :, first:]

    def decode(self, tokens: Sequence[int], group: Group) -> Logits:
        """One token for each row of the group: logits [n, vocab]. The group's rows are each one position longer."""
        at, count = group.positions(), len(group)
        total = int(at.max()) + 1
        if group.resident is None:
            group.resident = Resident(self._memory, group, self._bind)
        assert isinstance(group.resident, Resident)
        logits = self._run(
            group.resident.bindings,
            x=self.embed(tokens)[:, None],
            pos=at[:, None],
            last=np.arange(count),
            seen=at.astype(np.int32),
            total=np.array([total], np.int32),
            bias=np.zeros((1, 1, 1, total), np.float32),
        )
        group.grow()
        return logits

    def _bind(self, past: list[Any], into: list[Any]) -> list[Any]:
        """IO bindings of the segments with the KV that goes in and the KV that comes out; the same values: in place."""
        return [segment.bind(past[segment.arrays], into[segment.arrays]) for segment in self._segments]

    def _run(self, bindings: list[Any], done: Callable[[slice], None] | None = None, **inputs: NDArray[Any]) -> Logits:
        """Run the segments; done is told which arrays are, after each."""
        if not self._fused:
            inputs |= spelled_out(inputs["seen"], inputs["bias"], self.shape)
        values = {name: self._memory.hold(np.ascontiguousarray(array)) for name, array in inputs.items()}
        logits = np.empty((len(inputs["last"]), self._vocab), np.float32)
        space = self._memory.space(logits)
        for segment, binding in zip(self._segments, bindings, strict=True):
            values |= segment.run(binding, values, space, self._memory.device)
            if done is not None:
                done(segment.arrays)
        self._memory.fetch(space, logits)
        return logits


class _Segment:
    """A session over some consecutive layers."""

    def __init__(self, session: Any, layers: range) -> None:
        self.session = session
        self.arrays = slice(2 * layers.start, 2 * layers.stop)
        self._kv_names = [f"{kind}{layer}" for layer in layers for kind in ("k", "v")]
        names = [value.name for value in session.get_inputs()]
        self._inputs = [name for name in names if name not in set(self._kv_names)]
        made = [value.name for value in session.get_outputs()]
        self._border = [name for name in made if name != "logits" and not name.startswith("all_")]
        self._ends = "logits" in made

    def bind(self, past: list[Any], into: list[Any]) -> Any:
        binding = self.session.io_binding()
        for name, held, space in zip(self._kv_names, past, into, strict=True):
            binding.bind_ortvalue_input(name, held)
            binding.bind_ortvalue_output(f"all_{name}", space)
        return binding

    def run(self, binding: Any, values: dict[str, Any], logits: Any, device: str) -> dict[str, Any]:
        """What goes on to the next segment, by name; the last one writes the logits instead."""
        for name in self._inputs:
            binding.bind_ortvalue_input(name, values[name])
        for name in self._border:
            binding.bind_output(name, device)
        if self._ends:
            binding.bind_ortvalue_output("logits", logits)
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        if not self._border:
            return {}
        return dict(zip(self._border, binding.get_outputs()[-len(self._border) :], strict=True))


class Resident:
    """A group's KV bound for decoding: in the group's own memory on a CPU, else in a device's until it is asked for.

    A GPU's copy is made anew whenever rows join or leave the group. (Run with copies on a CPU; no GPU was at hand.)
    """

    def __init__(self, memory: Memory, group: Group, bind: Callable[[list[Any], list[Any]], list[Any]]) -> None:
        self._memory = memory
        self._stack = group.stack
        self._held = [memory.hold(array) for array in group.stack]
        self.bindings = bind(self._held, self._held)

    def settle(self) -> None:
        """Bring the KV back to the group's memory."""
        for value, array in zip(self._held, self._stack, strict=True):
            self._memory.fetch(value, array)


def spelled_out(seen: NDArray[Any], bias: Rows, shape: LlamaShape) -> dict[str, NDArray[Any]]:
    """What the graph that is not fused asks for instead of these two: the causal mask and the places of the new KV."""
    count, total = bias.shape[2:]
    at = seen.astype(np.int64)[:, None] - np.arange(count)[::-1]  # [B, T]
    hidden = np.where(np.arange(total) > at[..., None], np.float32(MASKED), np.float32(0))
    mask = np.tile((hidden[:, None] + bias).astype(np.float32), (1, 1, shape.group, 1))
    axes = np.meshgrid(np.arange(len(at)), np.arange(shape.kv_heads), np.arange(count), indexing="ij")
    return {"mask": mask, "slot": np.stack([axes[0], axes[1], at[axes[0], axes[2]]], axis=-1)}


def _apart(sizes: Sequence[int], start: int, unseen: int) -> Rows:
    """[1, 1, tokens, start + tokens]: MASKED where tokens would see another prompt's, or the first `unseen`."""
    prompt = np.repeat(np.arange(len(sizes)), sizes)
    bias = np.zeros((len(prompt), start + len(prompt)), np.float32)
    bias[:, start:][prompt[:, None] != prompt] = MASKED
    bias[:, :unseen] = MASKED
    return bias[None, None]
