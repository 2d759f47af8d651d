"""What ModServe publishes (arXiv 2502.00937, SoCC 2025) and this package shows its own figures beside.

All [P], the paper's own text. A share that a profile was calibrated on comes out again by itself: it is no evidence.
"""

from dataclasses import dataclass

NAME = "ModServe (arXiv 2502.00937)"
IMAGE_PX = (896, 896)  # of Table 1's example
FIG12_TOKENS = 16_384  # "16K": of each request of Fig. 12
FIG12_IMAGES = range(11)
FIG12_IMAGE_TOKENS = 1601
FIG12_GROWTH = 1.5  # TTFT from text alone to images alone, Llama3.2-11B
PREFILL_RATIO = 10.0  # insight 3: decoder-only over cross-attention of the same size, about
TRANSFER_P99_S = 0.005  # of an image request over InfiniBand (Fig. 20)


@dataclass(frozen=True, slots=True)
class Published:
    """Of one model; 0 and "" where the paper's text says nothing."""

    tokens: int  # Table 1: of the example image
    tiles: int
    encode_share: float = 0.0  # Fig. 5: of the time to first token
    prefill_gains: str = ""  # Fig. 8: whether prefill gains from batching


# In the order of Table 1. InternViT's 5 tiles of 256 tokens hold the overview.
MODELS: dict[str, Published] = {
    "llama-3.2-11b-vision": Published(6404, 4, 0.79, "gains"),
    "llama-3.2-90b-vision": Published(6404, 4, 0.65, "gains"),
    "llava-onevision-7b": Published(7290, 10, 0.0, "no gain"),
    "llava-onevision-72b": Published(7290, 10, 0.0, "no gain"),
    "internvl-2.5-26b": Published(1280, 5, 0.25),
    "nvlm-d-72b": Published(1280, 5, 0.54, "some gain"),
}
NOTHING = Published(0, 0)
# Of about the same size, one of each contract: what insight 3 compares.
SAME_SIZE = (("llama-3.2-11b-vision", "llava-onevision-7b"), ("llama-3.2-90b-vision", "llava-onevision-72b"))
ENCODE_GAINS = "no gain"  # insight 4, as decoder-only prefill
DECODE_GAINS = "gains"  # about linearly
BEST_GPUS = {"encode": 4, "prefill": 8, "decode": 1}  # Fig. 9, Llama3.2-11B, by latency; decode: time between tokens


def published(model: str) -> Published:
    return MODELS.get(model, NOTHING)
