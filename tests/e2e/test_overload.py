"""The two drills in short, on a mesh of their own: three times what it can serve, and clients that leave all at once.

A shared machine is no place for percents: the figures are in docs/figures.md, here what is broken is far off.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from headrace.cli import runstate
from headrace.cli.supervisor import Mesh
from headrace.workload.scenario import Scenario, read
from loadtest.drills import overload_report, storm_report
from loadtest.drills.overload import overload
from loadtest.drills.storm import abort_storm
from loadtest.drills.target import Target
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh

pytestmark = pytest.mark.timeout(120)

# A promise that a queue of a few seconds breaks: a level need not be longer.
CLASSES = "[classes.interactive]\nttft_s = 2.0\n[classes.batch-2]\n"
# Half a second an answer on eight slots, so that what the machine's other work costs does not show.
PROFILE = "source = '[I] chosen'\nkv_bytes_per_token = 256\n[cost]\ntokens = [0, 1000]\ntokens_s = [0.02, 0.03]\n"
NOISE = 0.5  # of the wanted shares: what a busy machine leaves of them


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drilled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("drills")
    (folder / "classes.toml").write_text(CLASSES)
    (folder / "pace.toml").write_text(PROFILE)
    config = small_mesh(
        folder / "mesh",
        profile=str(folder / "pace.toml"),
        encoders=0,
        gateways=1,
        colocate=("prefill", "decode"),
        environment={"HEADRACE_CLASSES_FILE": str(folder / "classes.toml"), "HEADRACE_PREDICT": "off"},
    )
    async with Mesh(config) as mesh:
        yield mesh


def _target(mesh: Mesh) -> Target:
    state = runstate.read(mesh.data_dir)
    assert state is not None
    return Target.of(state, mesh.data_dir)


def _scenario(name: str, seconds: float, **drill: object) -> Scenario:
    scenario = read(name).changed(duration_s=seconds)
    assert scenario.drill is not None
    return replace(scenario, drill=replace(scenario.drill, **drill))  # type: ignore[arg-type]


async def test_goodput_stays_at_three_times_what_can_be_served(drilled: Mesh) -> None:
    """And the refusals say what they should, and come at once."""
    scenario = _scenario("overload", 7.0, levels=(1.0, 3.0), saturation_rps=14.0)
    said: list[str] = []
    found = await overload(scenario, _target(drilled), said.append)
    full, over = map(overload_report.row, found.levels)
    assert full["offered"] == pytest.approx(14 * 7, rel=0.3), "the rate is the drill's, whatever the scenario's"
    assert over["offered"] == pytest.approx(3 * 14 * 7, rel=0.2)
    assert over["goodput_rps"] >= NOISE * max(full["goodput_rps"], over["goodput_rps"])
    assert over["goodput_rps"] >= NOISE * over["answers_rps"], "what is let in is answered in time"
    assert sum(over["refusals"].values()) > 0.3 * over["offered"]
    wrong = [check for check in overload_report.verdict(found)[1:] if not check.kept]
    assert not wrong
    assert {name.split()[0] for name in over["refusals"]} == {"429", "RESOURCE_EXHAUSTED"}
    await assert_free(drilled, 5.0)


async def test_nothing_is_left_of_clients_that_leave_all_at_once(drilled: Mesh) -> None:
    scenario = _scenario("abort-storm", 3.0, storms=1, aborts=200, abort_tokens=60, saturation_rps=12.0, grpc_share=0.2)
    found = await abort_storm(scenario, _target(drilled), lambda text: None)
    storm, checks = found.storms[0], {check.what: check for check in storm_report.verdict(found)}
    assert storm.there > 150
    assert 0 < storm.streaming < storm.there, "some wait, some are in the middle of their answers"
    assert not found.held
    assert not storm_report.grown(found)
    assert found.after["gateway-0 open streams"] == 0
    assert checks["steady requests that failed"].kept
    assert storm.gone_s < 2.0
    assert storm_report.rate_after(found, storm) >= NOISE * found.rate_rps
