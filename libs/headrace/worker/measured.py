"""How fast a model ran on this worker, from its iterations: what a real engine has instead of a profile."""

from collections.abc import Iterable

import numpy as np

from headrace.core.instance import Pace

STEPS_MIN = 32  # fewer tell little: the first ones also make pages and choose kernels
# Where all iterations had as many sequences nothing tells their share from the rest: a little weight on a small share
# leaves the time with the iteration, so that a full batch is not reckoned as many times one sequence.
SHARE_WEIGHT = 1e-3

Step = tuple[int, int, float]  # decoding sequences, prefilled tokens, seconds


def pace_of_steps(steps: Iterable[Step]) -> Pace:
    """Least squares with no negative coefficient; all zeros where there were too few steps."""
    from scipy.optimize import nnls  # a quarter of a worker's start, and only a change of models needs it

    rows = [(1.0, float(sequences), float(prefilled), took_s) for sequences, prefilled, took_s in steps]
    if len(rows) < STEPS_MIN:
        return Pace()
    table = np.array([*rows, (0.0, SHARE_WEIGHT * len(rows) ** 0.5, 0.0, 0.0)])
    (step_s, sequence_s, prefill_token_s), _ = nnls(table[:, :3], table[:, 3])
    return Pace(float(step_s), float(sequence_s), float(prefill_token_s))
