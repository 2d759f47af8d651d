"""What the paper says (arXiv 2502.00937, [P] all of it), to put ours beside. Nothing of ours was fitted to it."""

from typing import Any

LLAMA, INTERNVL = "llama-3.2-11b-vision", "internvl-2.5-26b"

PAPER: dict[str, Any] = {
    "ttft_change": {  # Fig. 14, against the system before; the later two are told for both models together
        "decoupled": {LLAMA: {"mean": -0.27, "p99": -0.42}, INTERNVL: {"mean": -0.46, "p99": -0.47}},
        "scheduled": {LLAMA: {"mean": -0.12, "p99": -0.25}, INTERNVL: {"mean": -0.12, "p99": -0.25}},
        "modserve": {LLAMA: {"mean": -0.14, "p99": -0.32}, INTERNVL: {"mean": -0.14, "p99": -0.32}},
    },
    "goodput_ratio": {LLAMA: 3.3, INTERNVL: 5.5},  # Fig. 15
    "goodput_ratio_most": {LLAMA: 4.3, INTERNVL: 6.8},  # Fig. 17, over SLO scales
    "gpu_saving": {LLAMA: 0.413, INTERNVL: 0.25},  # Fig. 16
    "ratio_study": "better than the monolith until 10:24 (Text:Image instances), worse at 12:16; Fig. 18",
    "separated_ttft_ratio": {"mean": 2.8, "p90": 3.2},  # Fig. 19, at most
    "tbt": "about equal in all systems",
}
