"""Many simulated cells: a fleet is cut without loss, requests count once, a lost cell's come again elsewhere."""

from functools import cache
from typing import Any

import pytest

from headrace.sim.cells import Layout, simulate_cells, split
from headrace.sim.sweep import prepare
from headrace.workload.scenario import Scenario

COSTS = ("cpu_s", "manager_share", "event_us", "event_p99_us")  # of this machine


def scenario(encoders: int, llms: int, rate_rps: float = 6.0) -> Scenario:
    changes: dict[str, Any] = {
        "duration_s": 8.0,
        "drain_s": 300.0,
        "workload.rate_rps": rate_rps,
        "workload.bursts": [],
    }
    return prepare("burst", changes | {"fleet.pools.encode.count": encoders, "fleet.pools.llm.count": llms})


@pytest.mark.parametrize(
    ("encoders", "llms", "cells", "counts"),
    [
        (232, 192, 8, [(29, 24)] * 8),
        (232, 192, 16, [(15, 12)] * 8 + [(14, 12)] * 8),
        (5, 4, 3, [(2, 1), (2, 1), (1, 2)]),
        (3, 3, 1, [(3, 3)]),
    ],
)
def test_a_fleet_is_cut_as_evenly_as_whole_workers_allow(
    encoders: int, llms: int, cells: int, counts: list[tuple[int, int]]
) -> None:
    parts = [part.fleet for part in split(scenario(encoders, llms), cells)]
    assert [tuple(pool.count for pool in part.pools) for part in parts if part is not None] == counts


@cache
def ran(layout: Layout) -> dict[str, Any]:
    return simulate_cells(scenario(4, 4), layout, "headrace", 1)


@pytest.mark.parametrize("spread", ["by-room", "least-load", "two-choices", "least-wait", "round-robin", "random"])
def test_every_request_goes_to_one_cell_and_ends_there(spread: str) -> None:
    whole, cut = ran(Layout(1)), ran(Layout(2, spread))
    assert cut["requests"] == whole["requests"] == sum(cut["by_cell"]) > 30
    assert cut["unserved"] == cut["lost"] == 0
    assert all(count > 0 for count in cut["by_cell"])
    assert len(cut["kept_by_s"]) == 8


def test_the_same_seed_gives_the_same_figures_but_for_what_they_cost() -> None:
    again = simulate_cells(scenario(4, 4), Layout(2), "headrace", 1)
    assert {k: v for k, v in again.items() if k not in COSTS} == {
        k: v for k, v in ran(Layout(2)).items() if k not in COSTS
    }


def test_what_a_lost_cell_had_is_asked_again_elsewhere_and_late() -> None:
    whole, lost = ran(Layout(2)), ran(Layout(2, lost_cell=0, lost_at_s=4.0))
    assert lost["requests"] == whole["requests"], "each ends once"
    assert 0 < lost["lost_begun"] <= lost["lost"]
    assert sum(lost["by_cell"]) >= lost["requests"] + lost["lost"], "those that were lost are in two cells' books"
    assert lost["ttft_p99_s"] >= whole["ttft_p99_s"] + 0.9, "a client waits a second before it asks again"
