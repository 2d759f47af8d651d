"""A cell of `bench queue --live`: a mesh of profile engines, its arrivals, and what its report is made of."""

import asyncio

import pytest

from loadtest.benches.queue_live import Live, LiveRun, carry_out

pytestmark = pytest.mark.timeout(120)


async def test_a_live_cell_tells_what_a_simulated_one_does() -> None:
    """A minute in three seconds, with three times as many requests as the fleet can serve."""
    row = await asyncio.to_thread(carry_out, LiveRun(Live("W_A", 3.0, 3.0, 20.0, 60.0), "headrace"))
    assert row["requests"] > 150
    assert 0.0 < row["attainment"] < 1.0
    assert 0.1 < row["utilisation"] <= 1.0
    assert row["plans"] > 0
    assert row["planner_s"] > 0.0
    assert sum(each["requests"] for each in row["wait_errors"]) > 0
