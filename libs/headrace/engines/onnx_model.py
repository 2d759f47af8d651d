"""The ONNX graph of a Llama-type LLM as functions of numpy arrays: embed, prefill, decode."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.engines.artifacts import build_once, progress
from headrace.engines.families.llama import Checkpoint, LlamaShape
from headrace.engines.graph import EMBED_FILE, GRAPH_VERSION, MASKED, MODEL_FILE, kv_names, write_graph
from headrace.engines.kvcache import Group, Kv
from headrace.engines.runtime import open_session
from headrace.engines.sampling import Logits

Rows = NDArray[np.float32]  # embeddings [tokens, width]
# Called with the index of the first KV array of some layers, in the order of a KV array's first axis, and the new KV of
# these layers, [1, kv_heads, tokens, head_width] each. Calls come in order and cover every array once.
LayersDone = Callable[[int, list[Kv]], None]


def graph_folder(checkpoint: Checkpoint, root: Path) -> Path:
    """Where the checkpoint's graph lies; built if it is not there."""
    identity = f"{checkpoint.fingerprint} graph {GRAPH_VERSION}"
    folder = root / f"{checkpoint.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def build(draft: Path) -> None:
        progress(f"preparing {checkpoint.name} for its first start on this machine: reading weights")
        weights = checkpoint.load_weights()
        progress(f"writing the graph to {folder}")
        write_graph(checkpoint.shape, weights, draft)
        progress(f"{checkpoint.name} is prepared")

    return build_once(folder, build)


class Llama:
    """The graph as a function of numpy arrays."""

    def __init__(self, folder: Path, shape: LlamaShape, threads: int) -> None:
        self.shape = shape
        self._embed = np.load(folder / EMBED_FILE, mmap_mode="r")
        self._names = kv_names(shape.layers)
        self._session = open_session(folder / MODEL_FILE, threads)

    def embed(self, tokens: Sequence[int]) -> Rows:
        return np.asarray(self._embed[np.asarray(tokens)])

    def prefill(
        self, prompts: Sequence[Rows], past: Kv, layers_done: LayersDone | None = None
    ) -> tuple[Logits, list[Kv]]:
        """Prompts packed one behind another in one row, each behind the same past and blind to the others.

        Logits [len(prompts), vocab] of the last token of each; new KV [1, kv_heads, all tokens, head_width] in the
        order of the prompts, for each array of a KV cache.
        """
        sizes, start = [len(prompt) for prompt in prompts], past.shape[2]
        logits, new = self._run(
            x=np.concatenate(prompts)[None],
            pos=start + np.concatenate([np.arange(size) for size in sizes])[None],
            last=np.cumsum(sizes) - 1,
            pmask=np.zeros((1, 1, 1, start), np.float32),
            cmask=np.tile(_causal(sizes), (self.shape.group, 1))[None, None],
            kv=[np.ascontiguousarray(array[None]) for array in past],
        )
        if layers_done is not None:
            layers_done(0, new)
        return logits, new

    def decode(self, tokens: Sequence[int], group: Group) -> tuple[Logits, list[Kv]]:
        """One token for each row of the group: logits [n, vocab], new KV [n, .., 1, ..]."""
        at, count = group.positions(), len(group)
        held = np.arange(group.stride) < at[:, None]
        return self._run(
            x=self.embed(tokens)[:, None],
            pos=at[:, None],
            last=np.arange(count),
            pmask=np.where(held, np.float32(0), np.float32(MASKED))[:, None, None],
            cmask=np.zeros((1, 1, self.shape.group, 1), np.float32),
            kv=group.arrays(),
        )

    def _run(self, *, kv: list[Kv], **inputs: NDArray[Any]) -> tuple[Logits, list[Kv]]:
        logits, *new = self._session.run(None, {**inputs, **dict(zip(self._names, kv, strict=True))})
        return logits, new


def _causal(sizes: Sequence[int]) -> Rows:
    """0 where a token of a prompt sees itself or one before it in the same prompt, else MASKED: [tokens, tokens]."""
    prompt = np.repeat(np.arange(len(sizes)), sizes)
    seen = np.tri(len(prompt), dtype=bool) & (prompt[:, None] == prompt)
    return np.where(seen, np.float32(0), np.float32(MASKED))
