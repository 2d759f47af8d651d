"""Equilibrium learning in Markov games ("O~(1/T) convergence to (coarse) correlated equilibria in full-information
general-sum Markov games", L4DC 2024): gaps over iterations, swap gaps, scaling, and what a published policy keeps.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headrace.characterize.document import Document
from headrace.core.games import LEARNERS, cce_gap, informed_gain, publish
from headrace.core.games.gaps import swapping
from headrace.core.games.published import exact
from headrace.report.compare import Estimate
from headrace.report.provenance import plain
from loadtest.benches.report import say
from loadtest.reproduce import oftrl_reference as reference
from loadtest.reproduce import oftrl_sections as sections
from loadtest.reproduce import oftrl_swaps as swaps
from loadtest.reproduce.oftrl_games import cyclic_game, random_game
from loadtest.reproduce.oftrl_runs import Gaps, Make, Took, ends_slope, measured, timed
from loadtest.reproduce.oftrl_scaling import QUICK_SIZES, SIZES, scaling
from loadtest.reproduce.running import Found, Options, run

MAKES: dict[str, Make] = {"random": random_game, "cyclic": cyclic_game}
ETAS = dict.fromkeys(LEARNERS, 0.5) | {"bm_log_barrier": 1.0}
AT = (*reference.AT, 3200, 6400, 12800)
CHECKS = (50, 100, *reference.AT)
SAMPLES = (8, 32, 128, 512)
TIMES = 5  # of which the least counts
ABOUT = (
    "Players that all learn by optimistic follow-the-regularised-leader (OFTRL) reach correlated play that nobody wins"
    " much by leaving. The paper's games and sizes are not public to us: two small ones stand in for them, with tables"
    " of an independent slow program. A gap is what the player with most to win would win by leaving, in rewards of a"
    " whole game, exact by dynamic programming."
)


@dataclass(frozen=True, slots=True)
class Extent:
    random_at: tuple[int, ...] = AT
    swap_at: tuple[int, ...] = AT
    sizes: tuple[tuple[str, tuple[int, ...]], ...] = tuple(SIZES.items())
    scaling_iterations: int = 1600
    scaling_seeds: int = 5


QUICK = replace(
    Extent(),
    random_at=AT[:5],
    swap_at=AT[:5],
    sizes=tuple(QUICK_SIZES.items()),
    scaling_iterations=400,
    scaling_seeds=2,
)


def measure(options: Options) -> Found:
    extent = QUICK if options.quick else Extent()
    seeds = range(len(options.seeds))  # those of the reference are the first two
    gaps: dict[str, dict[str, Gaps]] = {}
    for game, make in MAKES.items():
        say(f"{game} game: {len(LEARNERS)} learners, {len(seeds)} seeds")
        at = extent.random_at if game == "random" else AT
        gaps[game] = {name: measured(make, name, ETAS[name], at, seeds) for name in LEARNERS}
    beside = {game: [(row, _row(make, row)) for row in _rows(game)] for game, make in MAKES.items()}
    swap_gaps = {game: _swap_gaps(make, seeds) for game, make in MAKES.items()}
    say("Shapley's game")
    symmetric, moved = swaps.symmetric(extent.swap_at), swaps.moved(extent.swap_at, seeds)
    say("scaling, publishing, seconds")
    scaled = scaling(dict(extent.sizes), extent.scaling_iterations, range(extent.scaling_seeds))
    published = _published()
    seconds = {f"{row.learner} {row.eta:g}": _seconds(row) for row in reference.RANDOM}
    data = {
        "games": {game: {name: _data(each, ETAS[name]) for name, each in of.items()} for game, of in gaps.items()},
        "reference": {game: _beside(of) for game, of in beside.items()},
        "ce_gap": swap_gaps,
        "swap_gap_bm": symmetric[f"proven {swaps.PROVEN:.4f}"][swaps.ITERATIONS],
        "shapley": {"symmetric": symmetric, "moved": {name: _both(*each) for name, each in moved.items()}},
        "scaling": {size: {name: _points(of) for name, of in each.items()} for size, each in scaled.items()},
        "published": published,
        "seconds_test_a": max(each.processor_s for each in seconds.values()),
        "clock_seconds_test_a": max(each.clock_s for each in seconds.values()),
        "seconds_by_learner": {name: asdict(each) for name, each in seconds.items()},
    }
    told = (
        sections.gaps(gaps, ETAS, seeds),
        sections.beside(beside),
        sections.swaps(swap_gaps, symmetric, moved),
        sections.scaling(scaled, extent.scaling_iterations, extent.scaling_seeds),
        sections.published(published),
        sections.seconds(seconds),
    )
    return Found(Document("Equilibrium learning in Markov games", ABOUT, told, data=plain(data)), seeds=tuple(seeds))


def _rows(game: str) -> Sequence[reference.Row]:
    return reference.RANDOM if game == "random" else reference.CYCLIC


def _row(make: Make, row: reference.Row) -> dict[int, float]:
    return measured(make, row.learner, row.eta, reference.AT, reference.SEEDS).mean()


def _beside(rows: Sequence[tuple[reference.Row, dict[int, float]]]) -> dict[str, Any]:
    return {f"{row.learner} {row.eta:g}": {"here": here, "reference": row.gaps} for row, here in rows}


def _swap_gaps(make: Make, seeds: Sequence[int]) -> dict[str, list[float]]:
    """After 1,600 iterations: mean and half the interval of the gap of swaps."""
    found = {}
    for name in LEARNERS:
        each = measured(make, name, ETAS[name], reference.AT[-1:], seeds, swapping).estimates()[reference.AT[-1]]
        found[name] = [each.mean, each.half]
    return found


def _data(each: Gaps, eta: float) -> dict[str, Any]:
    """`gap` and `slope` are of the mean of seeds 0 and 1, as in the reference; `all` of every seed."""
    gap = each.mean(len(reference.SEEDS))
    return {
        "eta": eta,
        "gap": gap,
        "slope": each.slope(len(reference.SEEDS)),
        "slope_200_1600": ends_slope(gap, reference.AT[0], reference.AT[-1]),
        "all": _over_seeds(each),
        "all_slope": _pair(each.slopes()),
    }


def _both(swap: Gaps, coarse: Gaps) -> dict[str, Any]:
    return {"swap": _over_seeds(swap), "coarse": _over_seeds(coarse)}


def _over_seeds(each: Gaps) -> dict[int, list[float]]:
    return {at: _pair(of) for at, of in each.estimates().items()}


def _pair(each: Estimate) -> list[float]:
    return [each.mean, each.half]


def _points(points: Sequence[Any]) -> dict[int, Any]:
    return {each.size: {"iteration_s": each.iteration_s, "gap_share": _pair(each.gap)} for each in points}


def _published() -> dict[str, dict[int, dict[str, float]]]:
    """Of the random game, 1,600 iterations, seeds 0 and 1: tables of so many samples a step."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name in ("stage_oftrl", "smooth_oftrl"):
        runs = [(game, LEARNERS[name](game, 1600, ETAS[name])) for game in map(random_game, reference.SEEDS)]
        whole = statistics.mean(cce_gap(game, learnt) for game, learnt in runs)
        for samples in SAMPLES:
            sent = [(game, publish(learnt, game, samples, np.random.default_rng(samples))) for game, learnt in runs]
            found.setdefault(name, {})[samples] = {
                "gap": statistics.mean(policy.gap for _, policy in sent),
                "gap_of_all": whole,
                "informed": statistics.mean(float(informed_gain(game, exact(each.table)).max()) for game, each in sent),
                "kib": statistics.mean(len(policy.to_bytes()) for _, policy in sent) / 1024,
            }
    return found


def _seconds(row: reference.Row) -> Took:
    """Both seeds with all gap checks, as the reference was timed."""
    return timed(random_game, row.learner, row.eta, CHECKS, reference.SEEDS, TIMES)


def main(argv: list[str] | None = None) -> int:
    return run("oftrl", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
