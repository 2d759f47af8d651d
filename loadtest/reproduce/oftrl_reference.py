"""Reference tables: gaps of the certified policy, mean of seeds 0 and 1, with two or three digits, as an independent
slow program found them. Raw rewards: a whole game is worth at most 3 in the random game, 2 in the cyclic one.
"""

from dataclasses import dataclass

AT = (200, 400, 800, 1600)
SEEDS = (0, 1)
BAND = 0.03  # what a figure may differ by: its digits


@dataclass(frozen=True, slots=True)
class Row:
    learner: str
    eta: float
    gaps: tuple[float, float, float, float]  # after AT
    slope: float  # from the first to the last


RANDOM = (
    Row("stage_oftrl", 0.2, (0.348, 0.291, 0.134, 0.099), -0.61),
    Row("stage_oftrl", 0.5, (0.195, 0.129, 0.053, 0.039), -0.78),
    Row("smooth_oftrl", 0.2, (0.233, 0.097, 0.041, 0.0125), -1.41),
    Row("smooth_oftrl", 0.5, (0.069, 0.032, 0.0072, 0.0023), -1.63),
    Row("smooth_ftrl", 0.5, (0.073, 0.031, 0.0088, 0.0030), -1.53),
)
CYCLIC = (
    Row("smooth_oftrl", 0.5, (0.0061, 0.0031, 0.0015, 0.00077), -0.99),
    Row("smooth_ftrl", 0.5, (0.0063, 0.0032, 0.0023, 0.0169), 0.48),
    Row("stage_oftrl", 0.5, (0.0268, 0.0027, 0.0018, 0.0015), -1.37),
    Row("stage_ftrl", 0.5, (0.0321, 0.0095, 0.0110, 0.0158), -0.34),
)
SWAP_GAP = 0.0001  # Shapley's game, 3,200 iterations, the proven step size, plain averages
SECONDS = (8.0, 30.0)  # the slow program's 1,600 iterations of the random game with gap checks
