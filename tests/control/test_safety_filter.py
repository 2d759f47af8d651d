"""The safety filter: whatever a network says, nobody is faster than the safe controller, nor slower than was shown."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headrace.control.thermal.safety import MARGIN, filtered

GPUS = 16
SAID = arrays(np.float64, GPUS, elements=st.floats(allow_nan=True, allow_infinity=True, width=64))
SAFE = arrays(np.float64, GPUS, elements=st.floats(0.35, 1.0))


@given(SAID, SAFE, st.floats(0.35, 0.9))
def test_never_above_the_safe_speed_whatever_is_said(said: np.ndarray, safe: np.ndarray, least: float) -> None:
    speed, believed = filtered(said, safe, least, 1.0)
    assert (speed <= safe).all()
    assert (speed >= np.minimum(safe, least)).all()
    assert (speed[~believed] == safe[~believed]).all(), "who is not believed changes nothing"
    assert not believed[~np.isfinite(said)].any()


def test_what_it_lets_through() -> None:
    rows = [  # said, safe, speed, believed: demonstrators chose 0.7 to 1
        (0.80, 0.90, 0.80, True),  # slower: its own affair
        (0.95, 0.90, 0.90, True),  # faster: never
        (1.02, 1.00, 1.00, True),  # a little past the end is no nonsense
        (0.68, 0.90, 0.70, True),  # as slow as was shown, no slower
        (0.70 - 2 * MARGIN, 0.90, 0.90, False),
        (1.00 + 2 * MARGIN, 0.90, 0.90, False),
        (0.80, 0.50, 0.50, True),
        (float("nan"), 0.90, 0.90, False),
        (float("inf"), 0.90, 0.90, False),
    ]
    said, safe, speed, believed = (np.array(column) for column in zip(*rows, strict=True))
    found, whose = filtered(said, safe, 0.7, 1.0)
    assert found.tolist() == speed.tolist()
    assert whose.tolist() == believed.tolist()
