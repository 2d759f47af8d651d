"""Calibration: costs fitted with the simulator in the loop, to the times of the requests that a fit may see.

Residuals are logarithms of simulated over measured, of TTFT, TBT and JCT of each request; scipy's trust-region least
squares with a soft-L1 loss and bounds. Nothing is drawn: the same data give the same costs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from headrace.core.cost import Curve, StepCost
from loadtest.benches.vllm_requests_data import Floats, MeasuredRun, Times
from loadtest.benches.vllm_requests_run import Setting
from loadtest.benches.vllm_requests_subjects import Efficiency, Subject, roofline

Engine = Callable[[Subject, MeasuredRun, Setting], Times]

_ALIKE = 0.1  # residuals well beyond this count by their size alone, not by its square
# Far enough that admissions move: a simulated run changes in steps.
_STEP = 0.04
# Where a search begins: rough shares of a data sheet that engines reach.
START = Efficiency(compute=0.7, memory=0.8, iteration_s=0.004, sequence_s=2e-5)
TOKENS_MOST = 4096.0


@dataclass(frozen=True, slots=True)
class Fitted:
    setting: Setting
    values: dict[str, float]  # by name, in seconds, tokens or shares
    at_bounds: tuple[str, ...]  # names of values that would have gone further
    loss: float
    runs: int  # of the simulator


@dataclass(frozen=True, slots=True)
class Knob:
    """A number that is fitted: where it begins, and how far it may go as factors of that."""

    name: str
    start: float
    least: float = 0.1
    most: float = 10.0


def held_tokens(subject: Subject, run: MeasuredRun, rows: slice) -> int:
    """KV tokens whose reservation for whole outputs admits as many sequences as vLLM's growing ones would fill.

    A sequence that holds prompt + output / 2 on average reserves prompt + output here.
    """
    prompt, output = run.input_tokens[rows].mean(), run.output_tokens[rows].mean()
    return int(subject.kv_tokens * (prompt + output) / (prompt + output / 2))


def memory_binds(subject: Subject, run: MeasuredRun) -> bool:
    """Fewer ran at once than there are slots, while others waited."""
    return run.concurrent < subject.slots


def fit_costs(
    subject: Subject,
    run: MeasuredRun,
    rows: slice,
    engine: Engine,
    *,
    kv_tokens: int,
    kv_too: bool = False,
    evaluations: int,
) -> Fitted:
    """The coefficients of a step cost; `kv_too`: and how many KV tokens may be reserved, beginning with kv_tokens."""
    first = roofline(subject, START)
    floor_s = first.tokens_s(1)
    knobs = [
        Knob("floor_s", floor_s, 0.5, 3.0),
        Knob("token_s", (first.tokens_s(TOKENS_MOST) - floor_s) / TOKENS_MOST, 0.3, 3.0),
        Knob("decode_sequence_s", 1e-4, 0.01, 10.0),
        Knob("decode_context_token_s", first.decode_context_token_s, 0.3, 10.0),
        Knob("prefill_pair_s", first.prefill_pair_s, 0.3, 20.0),
    ]
    if kv_too:
        knobs.append(Knob("kv_tokens", kv_tokens, 0.7, 1.4))

    def setting(values: dict[str, float]) -> Setting:
        floor, slope = values["floor_s"], values["token_s"]
        return Setting(
            StepCost(
                tokens_s=Curve((0.0, TOKENS_MOST), (floor, floor + slope * TOKENS_MOST)),
                decode_sequence_s=values["decode_sequence_s"],
                decode_context_token_s=values["decode_context_token_s"],
                prefill_pair_s=values["prefill_pair_s"],
            ),
            int(values.get("kv_tokens", kv_tokens)),
        )

    return _fit(knobs, setting, subject, run, rows, engine, evaluations)


def fit_efficiency(subject: Subject, run: MeasuredRun, rows: slice, engine: Engine, *, evaluations: int) -> Fitted:
    """Shares of the data sheets that are reached; KV tokens follow from memory and lengths."""
    knobs = [
        Knob("compute", START.compute, 0.2, 1.4),
        Knob("memory", START.memory, 0.3, 1.25),
        Knob("iteration_s", START.iteration_s, 0.01, 6.0),
        Knob("sequence_s", START.sequence_s, 0.01, 20.0),
    ]
    if subject.gpus > 1:
        knobs.append(Knob("link", START.link, 0.1, 1.5))
    tokens = held_tokens(subject, run, rows)

    def setting(values: dict[str, float]) -> Setting:
        return Setting(roofline(subject, Efficiency(**values)), tokens)

    return _fit(knobs, setting, subject, run, rows, engine, evaluations)


def _fit(
    knobs: list[Knob],
    setting: Callable[[dict[str, float]], Setting],
    subject: Subject,
    run: MeasuredRun,
    rows: slice,
    engine: Engine,
    evaluations: int,
) -> Fitted:
    seen, runs = run.times.part(rows), 0

    def values(factors: Floats) -> dict[str, float]:
        return {knob.name: float(knob.start * factor) for knob, factor in zip(knobs, factors, strict=True)}

    def residuals(factors: Floats) -> Floats:
        nonlocal runs
        runs += 1
        return apart(engine(subject, run, setting(values(factors))).part(rows), seen)

    found = least_squares(
        residuals,
        np.ones(len(knobs)),
        bounds=([knob.least for knob in knobs], [knob.most for knob in knobs]),
        loss="soft_l1",
        f_scale=_ALIKE,
        diff_step=_STEP,
        max_nfev=evaluations,
        xtol=2e-3,
        ftol=1e-4,
    )
    stopped = tuple(knob.name for knob, at in zip(knobs, found.active_mask, strict=True) if at)
    return Fitted(setting(values(found.x)), values(found.x), stopped, float(found.cost), runs)


def apart(simulated: Times, measured: Times) -> Floats:
    """Logarithms of simulated over measured: TTFT, TBT and JCT of each request."""
    pairs = (
        (simulated.ttft_s, measured.ttft_s),
        (simulated.tbt_s, measured.tbt_s),
        (simulated.jct_s, measured.jct_s),
    )
    return np.concatenate([np.log(np.maximum(one, 1e-4) / np.maximum(other, 1e-4)) for one, other in pairs])
