"""What was measured: the GPUs, the model's shape and the engine's settings of each run, and a roofline over them."""

from dataclasses import dataclass

import numpy as np

from headrace.core.cost import Curve, StepCost
from headrace.profiles import gpu
from loadtest.benches.vllm_requests_data import Floats
from loadtest.fitting.shapes import BYTES, Llm, llm_named

BLOCK_TOKENS = 16
CHUNK_TOKENS = 2048  # max_num_batched_tokens of both runs
_KNOTS = (1, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Subject:
    """One measured run. Its settings: [C] casys-kaist/LLMServingSim: scripts, meta.json, sim.log under bench/."""

    run: str
    key: str
    gpu: str
    model: str
    gpus: int  # tensor parallel
    slots: int  # max_num_seqs
    kv_tokens: int  # that fit beside the weights

    @property
    def shape(self) -> Llm:
        return llm_named(self.model)


SUBJECTS = (
    # 256 in the bench's script for this GPU, 128 in an earlier run's meta.json: memory runs out long before either.
    Subject("RTX4090/Llama-3.1-8B", "rtx-4090", "rtx-4090", "llama-3.1-8b", 1, 256, 41_408),
    # Two GPUs over PCIe: its script, its meta.json and its simulator's config say so. KV tokens of a later vLLM; never
    # more than 170,000 were in use.
    Subject("RTXPRO6000/Qwen3-32B", "rtx-pro-6000", "rtx-pro-6000", "qwen3-32b", 2, 128, 462_144),
)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a GPU reaches of its data sheet; what calibration carries from one GPU to another."""

    compute: float = 1.0  # share of the tensor cores' dense 16-bit rate
    memory: float = 1.0  # share of the memory's bandwidth
    link: float = 1.0  # share of the link's speed, latency as bandwidth; one GPU has none
    iteration_s: float = 0.0  # of each iteration, beside the GPU's work
    sequence_s: float = 0.0  # of each sequence in a decoding batch: the engine's Python and sampling

    def __post_init__(self) -> None:
        assert min(self.compute, self.memory, self.link) > 0
        assert min(self.iteration_s, self.sequence_s) >= 0


def roofline(subject: Subject, reached: Efficiency) -> StepCost:
    """The slower of memory and tensor cores, over layer shapes and data sheets; all-reduces over PCIe as a ring.

    Products take 2 FLOP a weight and token; attention 4 a head, dimension and pair of positions. Embedding rows are
    looked up, the output's products are made of one row a sequence: both are counted as weights read, not as products.
    """
    card, shape = gpu(subject.gpu), subject.shape
    flops = card.tensor_flops_per_s * reached.compute * subject.gpus
    bytes_per_s = card.memory_bytes_per_s * reached.memory * subject.gpus
    ends_bytes = 2 * BYTES * shape.vocabulary * shape.hidden
    read_s = (shape.weights_bytes - ends_bytes / 2) / bytes_per_s
    product_s = 2 * (shape.weights_bytes - ends_bytes) / BYTES / flops
    tokens = np.array(_KNOTS, np.float64)
    seconds = (
        reached.iteration_s + np.maximum(read_s, tokens * product_s) + _all_reduces_s(subject, tokens) / reached.link
    )
    return StepCost(
        tokens_s=Curve(tuple(map(float, tokens)), tuple(map(float, seconds))),
        prefill_pair_s=4 * shape.layers * shape.heads * shape.qk_dim / flops,
        decode_sequence_s=reached.sequence_s,
        decode_context_token_s=shape.kv_bytes_per_token / bytes_per_s,
    )


def _all_reduces_s(subject: Subject, tokens: Floats) -> Floats:
    """Two a layer, as rings: each GPU sends and receives 2 (n - 1) / n of the activations in 2 (n - 1) turns."""
    others = subject.gpus - 1
    if not others:
        return np.zeros_like(tokens)
    link = gpu(subject.gpu).links["pcie"]
    moved_bytes = 2 * others / subject.gpus * tokens * subject.shape.hidden * BYTES
    return 2 * subject.shape.layers * (2 * others * link.latency_s + moved_bytes / link.bytes_per_s)
