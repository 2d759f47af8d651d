"""What SSJF's paper says, and what its released simulator gave when it was run again, next to where each comes from."""

from dataclasses import dataclass
from typing import Any

from loadtest.benches.ssjf_published import Mode

PAPER: dict[str, Any] = {
    "jct_change": [-0.396, -0.305],  # [A] abstract of arXiv 2404.08509, against FCFS, over all batching modes
    "throughput_ratio": [2.2, 3.6],  # [A] likewise
    "jobs": 50,  # [C] LLM-serving-with-proxy-models
    "runs": 20,  # [C]
    "throughput": "completions a second when a quarter of the jobs have ended [C]",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One of the settings in which the released simulator was run again; size is the batch's."""

    name: str
    mode: Mode
    arrivals: str  # "poisson" or "gamma"
    rate_rps: float
    jobs: int = 50
    size: int = 4
    cv: float = 2.0  # of gamma gaps


@dataclass(frozen=True, slots=True)
class Again:
    """Of the re-run [M]: changes of the mean JCT against FCFS, and throughput ratios; nan: not told."""

    oracle: float
    multi_cls: float
    cls: float
    random: float
    oracle_ratio: float = float("nan")
    multi_cls_ratio: float = float("nan")
    cls_ratio: float = float("nan")
    fcfs_waits_alone: bool = True


HEADLINE = {mode: Setting(f"{mode}, Poisson 3/s", mode, "poisson", 3.0) for mode in ("none", "dynamic", "continuous")}
RERUNS: tuple[tuple[Setting, Again], ...] = (
    (
        Setting("none, Poisson 1/s", "none", "poisson", 1.0),
        Again(-0.441, -0.335, -0.290, -0.007, 1.88, 1.66, 1.55),
    ),
    (HEADLINE["none"], Again(-0.434, -0.335, -0.265, 0.006, 3.63, 2.98, 1.99)),
    (
        Setting("none, Poisson 10/s", "none", "poisson", 10.0),
        Again(-0.416, -0.305, -0.259, -0.001, 6.4, 3.88, 2.29),
    ),
    (Setting("none, gamma 0.11/s", "none", "gamma", 0.11), Again(-0.368, -0.283, -0.232, -0.024, 3.0, 2.34)),
    (HEADLINE["dynamic"], Again(-0.60, -0.376, -0.257, 0.016, 2.4, 1.94)),
    (HEADLINE["continuous"], Again(-0.404, -0.258, -0.194, -0.034, multi_cls_ratio=1.35)),
    (Setting("continuous, gamma 0.11/s", "continuous", "gamma", 0.11), Again(-0.494, -0.436, -0.403, -0.349)),
    (
        Setting("continuous, gamma 0.11/s, FCFS waits 0", "continuous", "gamma", 0.11),
        Again(-0.230, -0.145, -0.091, 0.006, multi_cls_ratio=1.48, fcfs_waits_alone=False),
    ),
    (
        Setting("none, Poisson 3/s, 400 jobs", "none", "poisson", 3.0, jobs=400),
        Again(-0.088, -0.058, -0.014, 0.001, multi_cls_ratio=1.47),
    ),
)
