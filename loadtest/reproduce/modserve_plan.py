"""How much of the grid is run, and what every part of it shares: seeds, sizes, the targets of each model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.modserve_systems import MODELS
from loadtest.reproduce.modserve_traffic import Targets

# Of the order of slack, and of what the autoscaler takes for late: chosen before any run [I]; the paper's is not known.
ORDER_FACTOR = 10.0
FACTORS = (2.0, 5.0, 10.0, 25.0, 50.0, 100.0)  # that goodput is judged by: all of them are told

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Base:
    """Medians of isolated requests on a monolith: what targets are multiples of."""

    text_s: float
    image_s: float  # with one image
    tbt_s: float

    @property
    def targets(self) -> Targets:
        return Targets(round(ORDER_FACTOR * self.text_s, 4), round(ORDER_FACTOR * self.image_s, 4))


@dataclass(frozen=True, slots=True)
class Plan:
    seeds: tuple[int, ...]
    bases: Mapping[str, Base] = field(default_factory=dict)
    models: tuple[str, ...] = MODELS
    requests: int = 2_000  # of a run; the first sixth is not counted
    loads: tuple[float, ...] = (16.0, 32.0, 48.0, 64.0)  # requests/s on 128 GPUs, of the ordering
    control_load: float = 48.0
    whole_rates: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0)  # of the goodput search
    split_rates: tuple[float, ...] = (1.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0, 80.0, 100.0)
    encode_times: tuple[float, ...] = (0.5, 2.0)  # beside 1
    control_seeds: int = 0  # of controls and the sweep of the encoder; 0: all
    ratio_requests: int = 1_500
    ratio_shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    ratio_texts: tuple[int, ...] = (4, 6, 8, 10, 12)
    separated_loads: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)  # of the monolith's capacity by arithmetic
    day_requests: int = 18_000
    day_s: float = 3_600.0
    capacity_requests: int = 12_000
    capacity_seeds: int = 3

    @property
    def few(self) -> tuple[int, ...]:
        return self.seeds[: self.control_seeds] if self.control_seeds else self.seeds


def full(seeds: tuple[int, ...]) -> Plan:
    return Plan(seeds)


def quick(seeds: tuple[int, ...]) -> Plan:
    return Plan(
        seeds,
        requests=720,
        loads=(48.0,),
        whole_rates=(1.0, 8.0, 48.0),
        split_rates=(8.0, 48.0, 80.0),
        control_seeds=1,
        ratio_requests=360,
        ratio_shares=(0.1, 0.9),
        ratio_texts=(4, 10, 12),
        separated_loads=(0.25, 0.75),
        day_requests=1_500,
        day_s=900.0,
        capacity_requests=1_200,
        capacity_seeds=1,
    )


def told(figure: Estimate, digits: int = 2) -> str:
    """With its interval."""
    if figure.mean != figure.mean:
        return "–"
    half = f" ± {figure.half:.{digits}f}" if figure.half == figure.half else ""
    return f"{figure.mean:.{digits}f}{half}"


def of(rows: list[Row], key: str) -> Estimate:
    return estimate([float("nan") if row[key] is None else row[key] for row in rows])


def pair(figure: Estimate) -> list[float]:
    """Mean and half of the 95 % interval, for the JSON object."""
    return [figure.mean, figure.half]


def change(rows: list[Row], base: list[Row], key: str) -> Estimate:
    """Of a figure against another system's with the same requests: the seeds' own changes."""
    return estimate([mine[key] / other[key] - 1 for mine, other in zip(rows, base, strict=True)])
