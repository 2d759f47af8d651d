"""The packaged profiles beside measurements that took no part in their fit: ratios of ours to theirs.

What was measured is reduced to medians; each check is one list of rows, which the report prints and tests bound.
"""

import csv
import gzip
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from headrace.core.cost import StepWork
from headrace.profiles import instance

Row = dict[str, str]
K = TypeVar("K", bound=Hashable)
LAYER = (  # Vidur's columns of one layer without attention
    "input_layernorm",
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
    "add",
)
VIDUR = (
    ("meta-llama/Meta-Llama-3-8B", "llama-3.1-8b", 32, 4096),
    ("meta-llama/Llama-2-70b-hf", "llama-2-70b", 80, 8192),
)
VIDUR_TOKENS = (64, 128, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Our seconds over the measured ones, of one point."""

    profile: str
    what: str
    at: str
    ours_s: float
    theirs_s: float

    @property
    def ratio(self) -> float:
        return self.ours_s / self.theirs_s


def splitwise(data: Path) -> list[Ratio]:
    """Llama-2-70B on A100s and H100s (Mutinifni/splitwise-sim): whole prompts; decoding behind 512 tokens."""
    rows = [row for row in _rows(data, "splitwise_perf_model") if row["model"] == "llama2-70b"]
    found = []
    for (hardware, gpus, prompt, batch), same in _groups(rows, _splitwise_key):
        if hardware.endswith("pcap"):
            continue
        name = f"{hardware.partition('-')[0]}/llama-2-70b/tp{gpus}"
        step = instance(name).step
        if batch == 1:
            ours_s = step.step_s(StepWork(prompt, prompt * (prompt + 1) // 2))
            found.append(Ratio(name, "prefill", str(prompt), ours_s, _median(same, "prompt_time") * 1e-3))
        if prompt == 512:
            ours_s = step.step_s(StepWork(0, 0, batch, batch * (prompt + 64)))
            found.append(Ratio(name, "decode", str(batch), ours_s, _median(same, "token_time") * 1e-3))
    return found


def vidur(data: Path) -> list[Ratio]:
    """All but attention of one iteration: Vidur's kernels of a layer, and two of its all-reduces (microsoft/vidur)."""
    mlp = dict(_groups(_rows(data, "vidur_mlp_profiles"), _vidur_key))
    reduces = _reduces(data)
    found = []
    for gpu in ("a100", "h100"):
        for model, stem, layers, hidden in VIDUR:
            for gpus in (1, 2, 4, 8):
                name = f"{gpu}/{stem}/tp{gpus}"
                if (gpu, model, gpus, VIDUR_TOKENS[0]) not in mlp or (stem == "llama-2-70b" and gpus == 1):
                    continue
                if gpus > 1 and (gpu, gpus) not in reduces:
                    continue
                for tokens in VIDUR_TOKENS:
                    same = mlp[gpu, model, gpus, tokens]
                    layer_s = sum(_median(same, f"time_stats.{part}.median") for part in LAYER) * 1e-3
                    reduce_s = reduces[gpu, gpus](tokens * hidden * 2) if gpus > 1 else 0.0
                    ours_s = instance(name).step.tokens_s(tokens)
                    theirs_s = layers * (layer_s + 2 * reduce_s)
                    found.append(Ratio(name, "tokens", str(tokens), ours_s, theirs_s))
    return found


def mlenergy(data: Path) -> list[Ratio]:
    """Decoding of a model that the engine's own time was not calibrated on: Qwen3-32B on one and two H100s."""
    found = []
    for row in _rows(data, "mlenergy_v3_configs"):
        plain = row["gpu_model"] == "H100" and row["weight_precision"] == "bfloat16"
        if not plain or row["model_id"] != "Qwen/Qwen3-32B" or row["task"] != "lm-arena-chat":
            continue
        name = f"h100/qwen3-32b/tp{row['num_gpus']}"
        batch, context = float(row["avg_batch_size"]), 200 + float(row["avg_output_len"]) / 2
        ours_s = instance(name).step.step_s(StepWork(0, 0, round(batch), round(batch * context)))
        found.append(Ratio(name, "decode", f"{batch:.0f}", ours_s, float(row["median_itl_ms"]) * 1e-3))
    return sorted(found, key=lambda ratio: (ratio.profile, int(ratio.at)))


def _reduces(data: Path) -> dict[tuple[str, int], Callable[[float], float]]:
    """Vidur's all-reduces inside one machine: seconds by bytes, the nearest size that was measured."""
    rows = [
        row
        for row in _rows(data, "vidur_network_profiles")
        if row["op"] == "all_reduce"
        and row["devices_per_node"] == row["num_workers"]
        and row["profile"].endswith("dgx")
    ]
    sizes: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for (gpu, gpus, size), same in _groups(rows, _reduce_key):
        sizes[gpu, gpus][size] = _median(same, "time_stats.all_reduce.median") * 1e-3
    return {key: _nearest(of) for key, of in sizes.items()}


def _nearest(known: dict[int, float]) -> Callable[[float], float]:
    return lambda size: known[min(known, key=lambda other: abs(other - size))]


def _splitwise_key(row: Row) -> tuple[str, int, int, int]:
    return row["hardware"], int(row["tensor_parallel"]), int(row["prompt_size"]), int(row["batch_size"])


def _vidur_key(row: Row) -> tuple[str, str, int, int]:
    return row["gpu"], row["model"], int(row["num_tensor_parallel_workers"]), int(row["num_tokens"])


def _reduce_key(row: Row) -> tuple[str, int, int]:
    return row["profile"].partition("_")[0], int(row["num_workers"]), int(row["size"])


def _groups(rows: Iterable[Row], key: Callable[[Row], K]) -> Iterator[tuple[K, list[Row]]]:
    groups: dict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    yield from sorted(groups.items(), key=lambda item: repr(item[0]))


def _median(rows: list[Row], column: str) -> float:
    return median(float(row[column]) for row in rows)


def _rows(data: Path, name: str) -> Iterator[Row]:
    with gzip.open(data / f"{name}.csv.gz", "rt", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)
