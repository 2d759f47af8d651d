"""Overlap of encode and prefill within a request, simulated: times to first token with it and without, side by side.

`python -m loadtest.benches.overlap` prints the tables of docs/figures.md: requests of 1 to 16 images and a fifth of
text, at four loads; the last is more than the fleet can serve, and tells what it serves in all. Means over the seeds.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.core.slo import CLASSES
from headrace.sim.result import Result, mean, percentile
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival, Part
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated
from headrace.workload.scenario import Scenario

SECONDS = 120.0
TEXT_SHARE = 0.2
PATIENT = replace(CLASSES["interactive"], timeout_s=36_000.0)  # nobody is refused for lack of time
ENCODERS = PoolSpec("encode", ("encode",), gpu="a100", tp=1, count=4)
APART = (
    ENCODERS,
    PoolSpec("prefill", ("prefill",), gpu="a100", tp=4, count=1),
    PoolSpec("decode", ("decode",), gpu="a100", tp=4, count=1),
)
FEW = (replace(ENCODERS, count=1), *APART[1:])
TOGETHER = (ENCODERS, PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2))


@dataclass(frozen=True, slots=True)
class Case:
    model: str
    name: str
    pools: tuple[PoolSpec, ...]
    side_px: int
    images_max: int
    rates_rps: tuple[float, ...]  # low, medium, high, more than can be served


# Rates at which the busiest pool computes about 0.3, 0.6, 0.85 of the time and all of it.
CASES = (
    Case("internvl-2.5-26b", "prefill and decode apart", APART, 896, 16, (0.5, 1.0, 1.4, 2.5)),
    Case("internvl-2.5-26b", "prefill and decode in one", TOGETHER, 896, 16, (0.5, 1.0, 1.4, 3.5)),
    Case("llava-onevision-7b", "one encoder, prefill and decode apart", FEW, 384, 16, (0.8, 2.0, 3.0, 5.0)),
    Case("llama-3.2-11b-vision", "prefill and decode apart", APART, 896, 16, (0.5, 1.0, 1.4, 2.5)),
)
LOADS = ("low", "medium", "high", "over")


def arrivals(case: Case, rate_rps: float, seed: int) -> Iterator[Arrival]:
    rng, at_s = np.random.default_rng(seed), 0.0
    while (at_s := at_s + float(rng.exponential(1 / rate_rps))) < SECONDS:
        images = 0 if rng.random() < TEXT_SHARE else int(rng.integers(1, case.images_max + 1))
        parts = tuple(Part("image", case.side_px, case.side_px) for _ in range(images))
        text, output = int(rng.integers(50, 800)), int(rng.integers(20, 200))
        yield Arrival(at_s, text, output, parts, slo_class=PATIENT.name)


def run(case: Case, rate_rps: float, seed: int, policy: str, *, overlap: bool) -> Result:
    scenario = Scenario(
        name="overlap",
        about="",
        seed=seed,
        duration_s=SECONDS,
        drain_s=3600.0,
        model=case.model,
        workload=Generated(TextOnly(rate_rps=rate_rps)),  # not asked: the arrivals are given
        classes=(PATIENT,),
        shares=(1.0,),
        fleet=Fleet(case.pools, "infiniband"),
        mesh={"overlap": float(overlap)},
    )
    return simulate(scenario, policy, seed, arrivals=arrivals(case, rate_rps, seed))


@dataclass(frozen=True, slots=True)
class Row:
    several: tuple[float, float]  # TTFT of requests with several images: mean, p99
    others: tuple[float, float]
    jct_s: float
    tokens_per_s: float  # prompt, media and output tokens of what was served, until its last end
    busy: float  # share of the time that the busiest pool computes
    served: int
    early: float  # share of requests with several images whose prefill began early


def row_of(result: Result) -> Row:
    requests = result.requests
    several = requests.media_parts >= 2
    tokens = (requests.input_tokens + requests.media_tokens + requests.output_tokens)[requests.finished].sum()
    return Row(
        _mean_p99(requests.ttft_s[several]),
        _mean_p99(requests.ttft_s[~several]),
        mean(requests.jct_s),
        float(tokens / np.nanmax(requests.end_s)),
        max(float(pool.busy_share.mean()) for pool in result.pools),
        int(requests.finished.sum()),
        result.counters.get("overlaps", 0.0) / max(1, int(several.sum())),
    )


def _mean_p99(values: NDArray[np.float64]) -> tuple[float, float]:
    return mean(values), percentile(values, 0.99)


def averaged(rows: list[Row]) -> Row:
    def over(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    def pairs(name: str) -> tuple[float, float]:
        first, second = np.mean([getattr(row, name) for row in rows], axis=0)
        return float(first), float(second)

    return Row(
        pairs("several"),
        pairs("others"),
        over("jct_s"),
        over("tokens_per_s"),
        over("busy"),
        sum(row.served for row in rows),
        over("early"),
    )


def line(load: str, rate_rps: float, off: Row, on: Row) -> str:
    def both(name: str) -> str:
        (mean_off, p99_off), (mean_on, p99_on) = getattr(off, name), getattr(on, name)
        return f"{mean_off:.2f} → {mean_on:.2f} | {p99_off:.2f} → {p99_on:.2f}"

    gain = 1 - on.several[0] / off.several[0]
    known = f"{off.busy:.2f} | {on.early:.0%}"
    rest = f"{off.jct_s:.2f} → {on.jct_s:.2f} | {off.tokens_per_s:,.0f} → {on.tokens_per_s:,.0f}"
    return f"| {load} | {rate_rps} | {known} | {both('several')} | {gain:.0%} | {both('others')} | {rest} |"


HEAD = """| load | requests/s | busiest pool | began early | TTFT, several images: mean s | p99 s | less | \
TTFT, others: mean s | p99 s | JCT mean s | tokens/s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--policy", default="headrace")
    parser.add_argument("--model", default="", help="this one alone")
    args = parser.parse_args()
    for case in CASES:
        if args.model not in case.model:
            continue
        print(
            f"\n{case.model}, {case.name}; 1 to {case.images_max} images of {case.side_px} x {case.side_px}\n\n{HEAD}"
        )
        for load, rate_rps in zip(LOADS, case.rates_rps, strict=True):
            off, on = (
                averaged(
                    [
                        row_of(run(case, rate_rps, seed, args.policy, overlap=overlap))
                        for seed in range(1, args.seeds + 1)
                    ]
                )
                for overlap in (False, True)
            )
            assert off.served == on.served, "nobody may be lost"
            print(line(load, rate_rps, off, on), flush=True)


if __name__ == "__main__":
    main()
