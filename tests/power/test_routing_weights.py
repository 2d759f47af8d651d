"""What new work should avoid, as a weight: what caps cannot take back, heat, and devices that nobody can see."""

import numpy as np
import pytest

from headrace.core.power.fleet import Row
from headrace.core.power.risk import weights
from tests.power.governed import fleet

TWO_ROWS = fleet(["decode"] * 4, rows=(Row("a"), Row("b")), of_row=(0, 0, 1, 1))
COOL, HOT = 50.0, TWO_ROWS.limit_c[0]


@pytest.mark.parametrize(
    ("limit_w", "temp_c", "believed", "wanted"),
    [
        pytest.param([np.inf, np.inf], [COOL] * 4, [True] * 4, [1, 1, 1, 1], id="no limits, no risk"),
        pytest.param([500.0, np.inf], [COOL] * 4, [True] * 4, [1, 1, 1, 1], id="caps keep row a: speeds say it all"),
        pytest.param([250.0, np.inf], [COOL] * 4, [True] * 4, [0.792, 0.792, 1, 1], id="caps cannot keep row a"),
        pytest.param([250.0, 250.0], [COOL] * 4, [True] * 4, [1, 1, 1, 1], id="nowhere is better"),
        pytest.param([np.inf, np.inf], [HOT - 3, *[COOL] * 3], [True] * 4, [0.5, 1, 1, 1], id="near its own limit"),
        pytest.param([np.inf, np.inf], [COOL] * 4, [True, False, True, True], [1, 0.5, 1, 1], id="nobody can see it"),
    ],
)
def test_weights(limit_w: list[float], temp_c: list[float], believed: list[bool], wanted: list[float]) -> None:
    least_w = np.full(2, 2 * 150.0)
    found = weights(TWO_ROWS, least_w, np.array(limit_w), np.array(temp_c), np.array(believed))
    assert found == pytest.approx(wanted, abs=1e-3)
