"""What a calibration writes is read by the profiles, the scenarios and the simulator; a silent machine is told of."""

from pathlib import Path

import pytest

from headrace.calibration import Calibration, Plan
from headrace.calibration.calibrate import derive
from headrace.calibration.writing import Origin, write
from headrace.cli.main import main
from headrace.core.cost import Curve, StepCost
from headrace.profiles import encoder, gpu, holds_encoder, instance
from headrace.report.assumptions import assumptions
from headrace.report.provenance import Provenance
from headrace.sim.fleet import kind_of
from headrace.sim.run import simulate
from headrace.workload.scenario import read
from tests.calibration.synthetic import APART, PICTURES, Clockwork

COST = StepCost(Curve((1.0, 4096.0), (8e-3, 0.2)), 1e-9, 4e-5, 5e-8)
TOLD = Provenance("a desk", "2026-11-28", "abc", (1,), 'headrace calibrate --out "mine.toml"')


@pytest.fixture(scope="module")
def found() -> Calibration:
    return derive(Clockwork(COST).measured(Plan(rounds=2)), APART)


@pytest.mark.parametrize(("device", "has_card"), [("cpu", False), ("h100", True)])
def test_the_profile_is_read_as_it_was_found(tmp_path: Path, found: Calibration, device: str, has_card: bool) -> None:
    path, _ = write(found, Origin(device, has_card, TOLD), tmp_path / "mine.toml")
    for name in (str(path), f"{path}/tp1"):
        profile = instance(name)
        assert profile.name == f"{device}/mine/tp1"
        assert profile.step.tokens_s.xs == found.step.tokens_s.xs
        assert profile.step.tokens_s.ys == pytest.approx(found.step.tokens_s.ys, rel=1e-4)
        assert profile.step.decode_context_token_s == pytest.approx(found.step.decode_context_token_s, rel=1e-4)
        assert "headrace calibrate" in profile.source
        assert profile.power == (gpu("h100").power if has_card else type(profile.power)())
    assert holds_encoder(str(path))
    tower = encoder(f"{path}/tp1")
    assert tower.cost.tiles_s(2) == pytest.approx(PICTURES.tiles_s(2), rel=0.01)
    assert tower.part_tokens == 6


def test_the_fleet_has_the_meshs_shape_and_can_be_simulated(tmp_path: Path, found: Calibration) -> None:
    _, path = write(found, Origin("cpu", False, TOLD), tmp_path / "mine.toml")
    scenario = read(path)
    assert scenario.fleet is not None
    kinds = {pool.name: kind_of(pool, scenario.model) for pool in scenario.fleet.pools}
    assert {name: kind.stages for name, kind in kinds.items()} == {
        "encode": ("encode",),
        "prefill": ("prefill",),
        "decode": ("decode",),
    }
    assert (kinds["decode"].slots, kinds["decode"].blocks, kinds["decode"].block_tokens) == (64, 4096, 16)
    assert kinds["encode"].batch_max == 8
    assert not kinds["encode"].batch_whole, "a live encoder takes a quarter of what waits"
    assert dict(scenario.mesh) == pytest.approx(found.mesh_seconds, rel=1e-3)
    requests = simulate(scenario, "fcfs").requests
    assert requests.finished.all()
    assert requests.media_tokens.max() >= 6
    assert requests.media_tokens.max() % 6 == 0
    told = {each.name: each.source for each in assumptions(scenario, path.read_text(), {})}
    assert [name.split()[0] for name in told] == ["Scenario", "Encoder", "Instance"]
    assert all("[M] " in told[name][0] for name in list(told)[1:]), "measured, and how"


def test_no_mesh_no_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.toml"
    assert main(["calibrate", "--data-dir", str(tmp_path), "--out", str(out)]) == 1
    assert "no mesh is running here; start one with: headrace up" in capsys.readouterr().out
    assert not out.exists()
