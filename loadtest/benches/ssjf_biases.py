"""The published gains of SSJF: the released settings run again, and what is left of them without each bias."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benches.ssjf_figures import Figures, change, figures, intervals, mean_of
from loadtest.benches.ssjf_lengths import JOB_S, TOKEN_S, Drawn, Lengths
from loadtest.benches.ssjf_paper import HEADLINE, RERUNS, Again, Setting
from loadtest.benches.ssjf_published import MODES, RELEASED, Biases, fcfs, gamma_arrivals, poisson_arrivals, ssjf

Floats = NDArray[np.float64]
RUNS = 20  # [C]
UNBIASED = Biases(*[False] * len(fields(Biases)))
LONG_RUN = 400  # jobs, where the guard has taken over
LEAST_GAIN = 0.05  # of which shares are told: those of less are noise over noise
SWEEP_RPS = tuple(range(1, 11))  # [C]
THROUGHPUT = "throughput_quarter_rps"  # the published one


def once(setting: Setting, lengths: Lengths, seed: int, biases: Biases) -> dict[str, Figures]:
    """Each policy over the same jobs."""
    rng = np.random.default_rng([seed, setting.jobs])
    drawn = lengths.draw(rng, setting.jobs)
    if setting.arrivals == "poisson":
        arrival_s = poisson_arrivals(rng, setting.jobs, setting.rate_rps, biases)
    else:
        arrival_s = gamma_arrivals(rng, setting.jobs, setting.rate_rps, setting.cv, biases)
    exec_s = drawn.exec_s
    ends = {"fcfs": fcfs(setting.mode, setting.size, arrival_s, exec_s, biases)}
    for policy, (key, said_s) in _keys(lengths, drawn, rng).items():
        ends[policy] = ssjf(setting.mode, setting.size, arrival_s, exec_s, key, said_s, biases)
    return {policy: figures(arrival_s, end_s, exec_s) for policy, end_s in ends.items()}


def _keys(lengths: Lengths, drawn: Drawn, rng: np.random.Generator) -> dict[str, tuple[Floats, Floats]]:
    """By policy: what orders, and the predicted seconds. The random predictor says any of its classes alike [C]."""
    out = {"oracle": (np.full(len(drawn.tokens), np.nan), drawn.exec_s)}
    for policy in lengths.policies:
        said_s = JOB_S + TOKEN_S * lengths.expected_tokens(policy, drawn)
        out[policy] = (drawn.classes[policy].astype(np.float64), said_s)
    means = np.array([prediction.mean for prediction in lengths.predictions[lengths.policies[-1]]])
    any_class = rng.integers(0, len(means), len(drawn.tokens))
    return out | {"random": (any_class.astype(np.float64), JOB_S + TOKEN_S * means[any_class])}


def many(setting: Setting, lengths: Lengths, biases: Biases = RELEASED, runs: int = RUNS) -> dict[str, list[Figures]]:
    done = [once(setting, lengths, seed, biases) for seed in range(runs)]
    return {policy: [run[policy] for run in done] for policy in done[0]}


def published(lengths: Lengths) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mode -> policy -> figures at 3/s with batches of four, and the intervals; throughput is the paper's."""
    means: dict[str, Any] = {}
    around: dict[str, Any] = {}
    for mode in MODES:
        runs = many(HEADLINE[mode], lengths)
        means[mode] = {policy: _told(mean_of(of)) for policy, of in runs.items()}
        around[mode] = {policy: _told(intervals(of)) for policy, of in runs.items()}
    return means, around


def _told(found: Figures) -> Figures:
    return found | {"throughput_rps": found[THROUGHPUT], "throughput_all_rps": found["throughput_rps"]}


def _against(runs: dict[str, list[Figures]]) -> dict[str, dict[str, float]]:
    means = {policy: mean_of(of) for policy, of in runs.items()}
    return {
        policy: {
            "jct_change": change(of, means["fcfs"], "jct_mean_s"),
            "jct_p99_change": change(of, means["fcfs"], "jct_p99_s"),
            "throughput_ratio": of[THROUGHPUT] / means["fcfs"][THROUGHPUT],
            "throughput_all_ratio": of["throughput_rps"] / means["fcfs"]["throughput_rps"],
        }
        for policy, of in means.items()
        if policy != "fcfs"
    }


def reruns(lengths: Lengths, runs: int = RUNS) -> dict[str, Any]:
    """The settings that were run again with the released code, beside what that gave [M]."""
    out: dict[str, Any] = {}
    for setting, again in RERUNS:
        ours = _against(many(setting, lengths, replace(RELEASED, fcfs_waits_alone=again.fcfs_waits_alone), runs))
        out[setting.name] = {"here": ours, "released_code": _rerun(again, lengths)}
    return out


def _rerun(again: Again, lengths: Lengths) -> dict[str, dict[str, float | None]]:
    told = {
        "oracle": (again.oracle, again.oracle_ratio),
        "ssjf_multi_cls": (again.multi_cls, again.multi_cls_ratio),
        "ssjf": (again.cls, again.cls_ratio),
        "random": (again.random, float("nan")),
    }
    if "ssjf_multi_cls" not in lengths.policies:
        told["ssjf"] = told.pop("ssjf_multi_cls")
    return {
        policy: {"jct_change": jct, "throughput_ratio": None if np.isnan(ratio) else ratio}
        for policy, (jct, ratio) in told.items()
    }


def sweep(lengths: Lengths, rates_rps: Sequence[int] = SWEEP_RPS) -> dict[str, Any]:
    """Over Poisson rates, and the extremes that headlines are made of."""
    out: dict[str, Any] = {}
    for mode in MODES:
        found = [_against(many(replace(HEADLINE[mode], rate_rps=float(rate)), lengths)) for rate in rates_rps]
        out[mode] = {
            policy: {
                name: _extremes([each[policy][name] for each in found]) for name in ("jct_change", "throughput_ratio")
            }
            | {"by_rate": {str(rate): each[policy] for rate, each in zip(rates_rps, found, strict=True)}}
            for policy in found[0]
        }
    return out


def _extremes(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


STUDIED = (
    HEADLINE["none"],
    Setting("none, gamma 0.11/s", "none", "gamma", 0.11),
    HEADLINE["dynamic"],
    HEADLINE["continuous"],
    Setting("continuous, gamma 0.11/s", "continuous", "gamma", 0.11),
)


def biases(lengths: Lengths, runs: int = RUNS) -> dict[str, Any]:
    """By setting: gains as released, without each bias alone, without all, and without all over a longer run.

    jct_share is the part of the released gain that goes with the bias: 1 is all of it, below 0 it hid some. The
    throughput's bias is its definition: throughput_all_ratio is the same runs' without it.
    """
    out: dict[str, Any] = {}
    for setting in STUDIED:
        whole = _against(many(setting, lengths, RELEASED, runs))
        without = {
            bias.name: _against(many(setting, lengths, replace(RELEASED, **{bias.name: False}), runs))
            for bias in fields(Biases)
        }
        without["all_of_these"] = _against(many(setting, lengths, UNBIASED, runs))
        longer = replace(setting, jobs=LONG_RUN)
        without["fifty_jobs"] = _against(many(longer, lengths, RELEASED, max(2, runs // 4)))
        for name, found in without.items():
            without[name] = {policy: of | _shares(of, whole[policy]) for policy, of in found.items()}
        out[setting.name] = {"as_released": whole, "without": without}
    return out


def _shares(left: dict[str, float], whole: dict[str, float]) -> dict[str, float]:
    told = abs(whole["jct_change"]) >= LEAST_GAIN
    return {"jct_share": 1 - left["jct_change"] / whole["jct_change"] if told else float("nan")}
