"""SSJF in a steady state: renewal arrivals at a share of what FCFS can serve, ordered by the queue manager's objects.

Where it helps, where it cannot, and what ageing makes of its tail.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from headrace.core.lengths import Features, Prediction, RandomLengths
from headrace.core.ordering import ORDERS, Order
from headrace.core.ordering.ssjf import Ssjf
from loadtest.benches.ssjf_figures import Figures, figures, gains, intervals, mean_of
from loadtest.benches.ssjf_lengths import LONGEST, Drawn, Lengths
from loadtest.benches.ssjf_published import MODES, Mode
from loadtest.benches.ssjf_serve import Served, batches, keys, slots

Floats = NDArray[np.float64]
SIZE = 4
WARM, MEASURED = 500, 2_000  # jobs; the first fill the machine
UNLIMITED = 100_000  # places: more than there are jobs
CHAT_FEATURES = Features(prompt_tokens=1, max_tokens=LONGEST)

Runs = dict[str, list[Figures]]


@dataclass(frozen=True, slots=True)
class Load:
    """utilisation: of what FCFS serves at most in this mode. cv: of the gaps; 1 is Poisson."""

    mode: Mode
    utilisation: float
    cv: float = 1.0
    size: int = SIZE
    even: bool = False  # all answers are alike: the mean length
    batch_wait_s: float = 0.0  # of all policies
    warm: int = WARM


def capacity_rps(mode: Mode, size: int, exec_s: Floats) -> float:
    """Of FCFS without an end of its line: a batch of random jobs runs for the longest of them."""
    if mode == "none":
        return float(1 / exec_s.mean())
    if mode == "continuous":
        return float(size / exec_s.mean())
    x = np.sort(exec_s)
    below = np.arange(len(x) + 1) / len(x)
    return float(size / (x @ np.diff(below**size)))


def arrivals(rng: Generator, jobs: int, rate_rps: float, cv: float) -> Floats:
    """A renewal process: gaps are independent, gamma."""
    return np.cumsum(rng.gamma(1 / cv**2, cv**2 / rate_rps, jobs))


def policies(lengths: Lengths, drawn: Drawn, seed: int) -> dict[str, tuple[Order, list[Prediction]]]:
    """Each with the order of the live mesh and what it is told."""
    exact = {tokens: Prediction.exactly(tokens) for tokens in set(drawn.tokens.tolist())}
    chance = RandomLengths(seed=seed)
    shortest = ORDERS["ssjf"]
    told = {
        "fcfs": (ORDERS["fcfs"], [exact[tokens] for tokens in drawn.tokens.tolist()]),
        "oracle": (shortest, [exact[tokens] for tokens in drawn.tokens.tolist()]),
        "random": (shortest, [chance.predict(str(row), CHAT_FEATURES) for row in range(len(drawn.tokens))]),
    }
    for policy in lengths.policies:
        by_class = lengths.predictions[policy]
        told[policy] = (shortest, [by_class[said] for said in drawn.classes[policy].tolist()])
    return told


def serve(load: Load, arrival_s: Floats, exec_s: Floats, key: Sequence[float]) -> Served:
    if load.mode == "dynamic":
        return batches(arrival_s, exec_s, key, load.size, load.batch_wait_s)
    return slots(arrival_s, exec_s, key, 1 if load.mode == "none" else load.size)


@dataclass(frozen=True, slots=True)
class Jobs:
    drawn: Drawn
    arrival_s: Floats
    exec_s: Floats


def jobs_of(load: Load, lengths: Lengths, seed: int) -> Jobs:
    rng = np.random.default_rng([seed, 1])
    count = load.warm + MEASURED
    drawn = lengths.draw(rng, count)
    population_s = Drawn(lengths.tokens, {}).exec_s
    if load.even:
        drawn = Drawn(np.full(count, round(float(lengths.tokens.mean()))), drawn.classes)
        population_s = drawn.exec_s
    most_rps = capacity_rps(load.mode, min(load.size, SIZE), population_s)
    return Jobs(drawn, arrivals(rng, count, load.utilisation * most_rps, load.cv), drawn.exec_s)


def once(load: Load, lengths: Lengths, seed: int) -> dict[str, Figures]:
    """Each policy over the same jobs."""
    jobs, out = jobs_of(load, lengths, seed), {}
    for policy, (order, said) in policies(lengths, jobs.drawn, seed).items():
        served = serve(load, jobs.arrival_s, jobs.exec_s, keys(order, jobs.arrival_s, said))
        out[policy] = figures(jobs.arrival_s, served.end_s, jobs.exec_s, load.warm)
    return out


def many(run: Callable[[int], dict[str, Figures]], seeds: Sequence[int]) -> Runs:
    done = [run(seed) for seed in seeds]
    return {policy: [each[policy] for each in done] for policy in done[0]}


def summary(runs: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """means, ci95 and gains, by policy."""
    return {
        "means": {policy: mean_of(of) for policy, of in runs.items()},
        "ci95": {policy: intervals(of) for policy, of in runs.items()},
        "gains": gains(runs),
    }


def put(found: dict[str, Any], name: str, by_mode: Mapping[str, Any]) -> None:
    """Means under the section's name, intervals and gains beside it."""
    for mode, summary in by_mode.items():
        found.setdefault(name, {})[mode] = summary["means"]
        found["ci95"].setdefault(name, {})[mode] = summary["ci95"]
        found["gains"].setdefault(name, {})[mode] = summary["gains"]


def loaded(lengths: Lengths, seeds: Sequence[int], utilisation: float, cv: float = 1.0) -> dict[str, Any]:
    """By mode."""
    return {mode: _summary(Load(mode, utilisation, cv), lengths, seeds) for mode in MODES}


def _summary(load: Load, lengths: Lengths, seeds: Sequence[int]) -> dict[str, Any]:
    return summary(many(lambda seed: once(load, lengths, seed), seeds))


def overloaded(lengths: Lengths, seeds: Sequence[int]) -> dict[str, Any]:
    """Twice what FCFS can serve, until the last has ended: how much a policy serves at most, by mode."""
    return {mode: _summary(Load(mode, 2.0, warm=0), lengths, seeds) for mode in MODES}


def no_help(lengths: Lengths, seeds: Sequence[int]) -> dict[str, Any]:
    """Where there is nothing to gain: no line, or nothing to tell apart."""
    cases = {
        "low_load": Load("none", 0.3),
        "unlimited_memory": Load("continuous", 0.9, size=UNLIMITED),
        "even_lengths": Load("none", 0.9, even=True),
        "continuous_low_load": Load("continuous", 0.5),
    }
    return {name: _summary(load, lengths, seeds) for name, load in cases.items()}


AGEING_PER_S = (0.0, 1.0, 10.0, 100.0)


def ageing(lengths: Lengths, seeds: Sequence[int]) -> dict[str, Any]:
    """SSJF's own predictions with other rates of ageing, at 0.9 without batching; 10 is the live mesh's."""
    load = Load("none", 0.9)

    def run(seed: int) -> dict[str, Figures]:
        jobs = jobs_of(load, lengths, seed)
        told = policies(lengths, jobs.drawn, seed)
        orders: dict[str, Order] = {"fcfs": told["fcfs"][0]}
        orders |= {f"{rate:g}": replace(Ssjf(), ageing_per_s=rate) for rate in AGEING_PER_S}
        ends = {
            name: serve(load, jobs.arrival_s, jobs.exec_s, keys(order, jobs.arrival_s, told["ssjf"][1])).end_s
            for name, order in orders.items()
        }
        return {name: figures(jobs.arrival_s, end_s, jobs.exec_s, load.warm) for name, end_s in ends.items()}

    return summary(many(run, seeds))
