"""Prefills that begin early are on a simulated world's tape, with deaths and outages, and replay to every effect."""

from dataclasses import replace

import pytest

from headrace.sim.run import Run
from headrace.workload.fleet import Incident, PoolSpec
from tests.parity.replaying import differs, kinds, replayed
from tests.parity.test_simulated_tape import read, recorded
from tests.sim.scenes import scene
from tests.sim.test_simulated_overlap import APART, MODEL, TOGETHER, arrivals

BEFALLS = (
    Incident(3.0, "kill", "encode-0"),
    Incident(6.0, "bus_down", seconds=1.0),
    Incident(8.0, "stop", "encode-1", seconds=3.0),
)


@pytest.mark.parametrize(("pools", "policy"), [(APART, "headrace"), (TOGETHER, "fcfs")], ids=["apart", "together"])
def test_it_replays_to_every_effect(pools: tuple[PoolSpec, ...], policy: str) -> None:
    asked = [arrival for arrival in arrivals(1.5, 10) if arrival.at_s < 10.0]
    tape = recorded(Run(scene(pools, model=MODEL, incidents=BEFALLS, duration_s=10.0), policy, 1, asked))
    config, frames = read(tape)
    effects = kinds(frames)[1]
    assert effects["SendParts"] > 10
    assert effects["RecoverTokens"] > 0
    core, differing = replayed(config, frames)
    assert differing == []
    assert core.inspect(0.0) == tape.core.inspect(0.0)
    assert differs(replace(config, overlap=False), frames)
