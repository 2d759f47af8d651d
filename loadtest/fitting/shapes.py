"""The layer shapes of the models that are profiled, each with its source; weights and KV follow from them.

Shapes are those of each model's published config.json, recalled [R]; Llama-2-70B's and Llama-3-8B's agree with the
columns of Vidur's profiles [C].
"""

from dataclasses import dataclass

BYTES = 2  # bf16


@dataclass(frozen=True, slots=True)
class Llm:
    """A decoder with gated MLPs and grouped queries; `cross` of its layers attend to media rows instead."""

    stem: str
    title: str
    layers: int  # all of them
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context_tokens: int
    cross: int = 0
    media_dim: int = 0  # of the encoder's rows, where the LLM projects them itself
    qk_dim: int = 128
    note: str = ""

    @property
    def self_layers(self) -> int:
        return self.layers - self.cross

    @property
    def weights_bytes(self) -> int:
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.qk_dim
        layer = qkv + self.heads * self.qk_dim * self.hidden + 3 * self.hidden * self.intermediate + 2 * self.hidden
        ends = 2 * self.vocabulary * self.hidden + self.media_dim * self.hidden
        return BYTES * (self.layers * layer + ends)

    @property
    def kv_bytes_per_token(self) -> int:
        return self.self_layers * 2 * self.kv_heads * self.qk_dim * BYTES

    @property
    def cross_kv_bytes_per_token(self) -> int:
        return self.cross * 2 * self.kv_heads * self.qk_dim * BYTES

    def splits(self, gpus: int) -> bool:
        """Whether tensor parallelism divides its heads; KV heads are repeated where there are too few."""
        return not self.heads % gpus and not self.intermediate % gpus


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision transformer with two-layer MLPs."""

    stem: str
    title: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    tile_patches: int  # rows of the transformer, of one tile
    parameters: float  # as the paper counts them
    embed_bytes_per_token: int
    note: str = ""

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def weights_bytes(self) -> int:
        return int(self.parameters * BYTES)

    @property
    def tile_flop(self) -> float:
        return 2 * self.parameters * self.tile_patches


_CROSS = (
    "{cross} cross-attention layers of {layers} [R] config.json{but}; they run for text alone too here, which the"
    " model skips"
)

LLMS = (
    Llm("llama-3.1-8b", "Llama-3.1-8B", 32, 4096, 32, 8, 14336, 128256, 131072),
    Llm("mistral-7b", "Mistral-7B-v0.3", 32, 4096, 32, 8, 14336, 32768, 32768),
    Llm("vicuna-13b", "Vicuna-13B-v1.5", 40, 5120, 40, 40, 13824, 32000, 4096),
    Llm("llama-2-70b", "Llama-2-70B", 80, 8192, 64, 8, 28672, 32000, 4096),
    Llm("qwen2-7b", "Qwen2-7B", 28, 3584, 28, 4, 18944, 152064, 32768),
    Llm("qwen2-72b", "Qwen2-72B", 80, 8192, 64, 8, 29568, 152064, 32768),
    Llm("internlm2.5-20b", "InternLM2.5-20B", 48, 6144, 48, 8, 16384, 92544, 32768),
    Llm(
        "llama-3.2-11b-vision",
        "the text tower of Llama-3.2-11B-Vision",
        40,
        4096,
        32,
        8,
        14336,
        128256,
        131072,
        cross=8,
        media_dim=7680,
        note=_CROSS.format(cross=8, layers=40, but="; ModServe's text says 4 of 40 [P]"),
    ),
    Llm(
        "llama-3.2-90b-vision",
        "the text tower of Llama-3.2-90B-Vision",
        100,
        8192,
        64,
        8,
        28672,
        128256,
        131072,
        cross=20,
        media_dim=7680,
        note=_CROSS.format(cross=20, layers=100, but=""),
    ),
)
QWEN3_32B = Llm("qwen3-32b", "Qwen3-32B", 64, 5120, 64, 8, 25600, 151936, 40960)

TOWERS = (
    Tower(
        "vit-h14",
        "ViT-H/14 of Llama-3.2-Vision",
        40,
        1280,
        16,
        5120,
        1601,
        630e6,
        2 * 7680,
        note="630M parameters [P] ModServe Table 1 (its config's 32 + 8 layers hold about 0.8B [R])",
    ),
    Tower("siglip-400m", "SigLIP-400M of LLaVA-OneVision", 27, 1152, 16, 4304, 729, 400e6, 2 * 1152),
    Tower("internvit-6b", "InternViT-6B of InternVL-2.5 and NVLM-D", 45, 3200, 25, 12800, 1025, 5.54e9, 2 * 12800),
)


def llm_named(stem: str) -> Llm:
    return next(llm for llm in (*LLMS, QWEN3_32B) if llm.stem == stem)
