"""What an engine adds to its kernels: an iteration's and a sequence's own time, from ML.ENERGY's measured H100s."""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from loadtest.fitting.compose import Composer
from loadtest.fitting.shapes import llm_named
from loadtest.fitting.tables import Tables

# Models whose shapes are profiled, as the leaderboard names them: (id, GPUs, our shapes).
MEASURED = (
    ("meta-llama/Llama-3.1-8B-Instruct", 1, "llama-3.1-8b"),
    ("meta-llama/Llama-3.1-70B-Instruct", 4, "llama-2-70b"),  # but for the vocabulary the same shapes
)
PROMPT_TOKENS = 200  # of a chat, about; the leaderboard does not say
SEQUENCES_MAX = 256  # beyond, prefill of newcomers is in most iterations


@dataclass(frozen=True, slots=True)
class Engine:
    iteration_s: float
    sequence_s: float  # of each decoding sequence
    errors: tuple[float, ...]  # relative, of every measured point
    source: str


@dataclass(frozen=True, slots=True)
class Point:
    llm: str
    gpus: int
    batch: float
    context: float
    step_s: float
    power_w: float  # of each GPU


def measured(data: Path) -> list[Point]:
    """Steady decoding of bf16 models on H100s in ML.ENERGY leaderboard v3, lm-arena-chat."""
    with gzip.open(data / "mlenergy_v3_configs.csv.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["gpu_model"] == "H100" and row["task"] == "lm-arena-chat"]
    points = []
    for model_id, gpus, stem in MEASURED:
        for row in rows:
            if row["model_id"] == model_id and int(row["num_gpus"]) == gpus and row["weight_precision"] == "bfloat16":
                context = PROMPT_TOKENS + float(row["avg_output_len"]) / 2
                batch, power_w = float(row["avg_batch_size"]), float(row["avg_power_watts"]) / gpus
                points.append(Point(stem, gpus, batch, context, float(row["median_itl_ms"]) * 1e-3, power_w))
    return [
        point for point in sorted(points, key=lambda point: (point.llm, point.batch)) if point.batch <= SEQUENCES_MAX
    ]


def engine(data: Path, h100: Tables, memory_bytes_per_s: float) -> Engine:
    """Least squares of relative errors: measured seconds = kernels + iteration_s + sequences x sequence_s."""
    points = measured(data)
    kernels = np.array([_kernels_s(point, h100, memory_bytes_per_s) for point in points])
    step = np.array([point.step_s for point in points])
    terms = np.array([[1.0, point.batch] for point in points])
    found, _ = nnls(terms / step[:, None], (step - kernels) / step)
    errors = (kernels + terms @ found) / step - 1
    source = (
        f"[M/I] ML.ENERGY leaderboard v3's median inter-token times of {len(points)} H100 runs (lm-arena-chat,"
        " Llama-3.1-8B on 1 GPU and 70B on 4, 8 to 256 sequences) less their kernels [M]; on other GPUs the same [I],"
        " since it is the host's work"
    )
    return Engine(float(found[0]), float(found[1]), tuple(float(error) for error in errors), source)


def _kernels_s(point: Point, tables: Tables, memory_bytes_per_s: float) -> float:
    composer = Composer(tables, memory_bytes_per_s, llm_named(point.llm), point.gpus, 0.0)
    return composer.decode_s(round(point.batch), round(point.context))
