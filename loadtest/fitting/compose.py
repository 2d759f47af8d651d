"""Seconds of one iteration of an LLM on one GPU of a tensor-parallel group, from the tables of its kernels.

What no table has is written down as a constant with its source: element-wise kernels, and the engine's own work.
"""

from dataclasses import dataclass

from loadtest.fitting.shapes import BYTES, Llm
from loadtest.fitting.tables import Tables

# Of the time that a kernel's bytes would take at the data sheet's rate, and what each costs beside it: the corrections
# mem_bw_empirical_scaling_factor and mem_empirical_constant_latency of aiconfigurator's system files [C].
MEMORY_SHARE = 0.8
KERNEL_S = 3e-6


@dataclass(frozen=True, slots=True)
class Composer:
    tables: Tables
    memory_bytes_per_s: float
    llm: Llm
    gpus: int
    iteration_s: float  # the engine's own work, by calibration: see calibrate.iteration_s

    @property
    def heads(self) -> int:
        return self.llm.heads // self.gpus

    @property
    def kv_heads(self) -> int:
        return max(1, self.llm.kv_heads // self.gpus)

    def layers_s(self, tokens: float) -> float:
        """All but attention, the logits and the engine's work: products, element-wise kernels, all-reduces."""
        llm, width = self.llm, self.heads * self.llm.qk_dim
        kv_width = 2 * self.kv_heads * llm.qk_dim
        inner = llm.intermediate / self.gpus
        gemm = self.tables.gemm_s
        out_s = gemm(tokens, llm.hidden, width) + gemm(tokens, 2 * inner, llm.hidden) + gemm(tokens, llm.hidden, inner)
        own_s = llm.self_layers * gemm(tokens, width + kv_width, llm.hidden)
        cross_s = llm.cross * gemm(tokens, width, llm.hidden) if llm.cross else 0.0
        # Two norms with their residuals, rotary positions, the gate.
        moved = (2 * 4 * llm.hidden, 2 * (width + kv_width), 3 * inner)
        light_s = sum(BYTES * tokens * size / (MEMORY_SHARE * self.memory_bytes_per_s) for size in moved) + 4 * KERNEL_S
        reduce_s = 2 * self.tables.reduce_s(tokens * llm.hidden, self.gpus)
        return own_s + cross_s + llm.layers * (out_s + light_s + reduce_s)

    def logits_s(self, sequences: float) -> float:
        return self.tables.gemm_s(sequences, self.llm.vocabulary / self.gpus, self.llm.hidden)

    def media_s(self, rows: float) -> float:
        """Projection of media rows and their cross KV, once a prefill."""
        llm = self.llm
        if not llm.cross:
            return 0.0
        project_s = self.tables.gemm_s(rows, llm.hidden, llm.media_dim)  # whole on each GPU
        return project_s + llm.cross * self.tables.gemm_s(rows, 2 * self.kv_heads * llm.qk_dim, llm.hidden)

    def context_s(self, batch: int, tokens: int) -> float:
        return self.llm.self_layers * self.tables.context_s(batch, tokens, self.heads, self.kv_heads)

    def generation_s(self, batch: int, context: int) -> float:
        return self.llm.self_layers * self.tables.generation_s(batch, context, self.heads, self.kv_heads)

    def prefill_s(self, batch: int, tokens: int) -> float:
        """An iteration that prefills `batch` whole prompts of `tokens` each."""
        return self.dense_s(batch * tokens, batch) + self.context_s(batch, tokens)

    def decode_s(self, batch: int, context: int) -> float:
        """An iteration in which `batch` sequences that look back at `context` tokens emit one each."""
        return self.dense_s(batch, batch) + self.generation_s(batch, context)

    def dense_s(self, tokens: int, sequences: int) -> float:
        return self.layers_s(tokens) + self.logits_s(sequences) + self.iteration_s
