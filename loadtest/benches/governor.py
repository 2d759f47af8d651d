"""The governor on a live mesh: the row's budget falls to 70 % of its demand and comes back, a UPS is lost and mended.

Seven workers that play H100s, real bus and journal, a request at every beat, 85 % of what they can do. Each with the
queue manager listening to the governor and not. Then the same without a governor: one cap for all GPUs, for ever, which
must fail; and (not with --quick) the best caps that stay, and a row of three of the workers cut alone. Power is
measured from the devices' own energy counters.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from headrace.cli.rehearse import mesh_config, stage
from headrace.cli.supervisor import Mesh
from headrace.rehearsal import attainable
from headrace.rehearsal.scene import Scene
from headrace.rehearsal.stage import Stage
from headrace.report.provenance import plain
from loadtest.benches.governor_figures import attainment, before_of, failures, figures_of, passed, timeline
from loadtest.benches.governor_run import ROW, ROW_WORKERS, Plan, Run, capped, couple, governed, one_row
from loadtest.benches.report import finish, say

FULL = Plan(warm_s=12.0, before_s=12.0, cut_s=30.0, back_s=20.0, ups_s=15.0, clear_s=10.0)
FULL_CONTROL = Plan(warm_s=12.0, before_s=5.0, cut_s=30.0, back_s=20.0)
ONE_ROW = Plan(warm_s=12.0, before_s=5.0, cut_s=30.0, back_s=12.0)
# A minute in all, starting the mesh included: enough to see each thing happen, not enough for percents.
QUICK = Plan(warm_s=5.5, before_s=2.0, cut_s=6.0, back_s=3.5, ups_s=3.0, clear_s=1.0, drain_s=0.0)
QUICK_OFF = Plan(warm_s=4.5, before_s=0.5, cut_s=3.0, back_s=0.5, drain_s=0.0)
QUICK_CONTROL = Plan(warm_s=4.0, before_s=0.5, cut_s=3.0, back_s=4.0, drain_s=0.0)


async def measure(folder: Path, quick: bool) -> dict[str, Any]:
    scene, runs = Scene(), dict[str, Run]()
    config = mesh_config(scene, folder, service_environment={"qm-0": {"HEADRACE_GOVERNOR_COUPLING": "on"}})
    async with Mesh(config) as mesh, stage(scene, mesh) as on_stage:
        say(f"{scene.workers} workers serve; {scene.rate_rps:g} requests/s, {scene.load:.0%} of what they can do")
        runs["on"] = await governed(on_stage, QUICK if quick else FULL)
        before = before_of(runs["on"])
        _tell("coupling on", figures_of(runs["on"], scene, before))
        await couple(mesh, "off")
        runs["off"] = await governed(on_stage, QUICK_OFF if quick else FULL)
        _tell("coupling off", figures_of(runs["off"], scene, before))
        mesh.kill("governor-0")
        await _controls(on_stage, runs, quick)
    if not quick:
        await _one_row(folder, scene, runs)
    return _figures(runs, scene)


async def _one_row(folder: Path, scene: Scene, runs: dict[str, Run]) -> None:
    """Another mesh: some workers have a budget of their own, so it matters who knows how slow they are."""
    rows = folder / "rows.toml"
    rows.write_text(f'[[row]]\nname = "{ROW}"\nworkers = {list(ROW_WORKERS)}\n', encoding="utf-8")
    told = {"governor-0": {"HEADRACE_ROWS": str(rows)}, "qm-0": {"HEADRACE_GOVERNOR_COUPLING": "on"}}
    config = mesh_config(scene, folder, data_dir=folder / "rows", service_environment=told)
    async with Mesh(config) as mesh, stage(scene, mesh) as on_stage:
        for coupling in ("on", "off"):
            if coupling == "off":
                await couple(mesh, "off")
            run = runs[f"one_row_{coupling}"] = await one_row(on_stage, ONE_ROW)
            _tell(f"{ROW} alone cut, coupling {coupling}", figures_of(run, scene, before_of(run)))


async def _controls(on_stage: Stage, runs: dict[str, Run], quick: bool) -> None:
    scene, budget_w = on_stage.scene, runs["on"].budget_w
    plan = QUICK_CONTROL if quick else FULL_CONTROL
    runs["permanent_cap"] = await capped(on_stage, plan, attainable.even(scene, budget_w), budget_w, lifted=False)
    _tell("one cap for all, for ever", figures_of(runs["permanent_cap"], scene, before_of(runs["on"])))
    if not quick:
        shared = attainable.best(scene, budget_w)
        runs["best_static"] = await capped(on_stage, plan, shared, budget_w, lifted=True)
        _tell("the best caps of the cut, said once", figures_of(runs["best_static"], scene, before_of(runs["on"])))


def _figures(runs: dict[str, Run], scene: Scene) -> dict[str, Any]:
    before = before_of(runs["on"])
    found = {name: figures_of(run, scene, before) for name, run in runs.items()}
    kept = {name: attainment(run) for name, run in runs.items()}
    on = found.pop("on")
    heads = ("overshoot_share", "overshoot_s", "settle_s", "recover_s", "goodput_share_of_attainable")
    return {
        **{key: on[key] for key in heads},
        "attainment": {name: {"off": kept["off"][name], "on": kept["on"][name]} for name in kept["on"]},
        "passed": passed(on),
        "permanent_cap_fails": not all(passed(found["permanent_cap"]).values()),
        "on": on,
        **{name: figures | {"passed": passed(figures)} for name, figures in found.items()},
        "failures": {name: failures(run.asked) for name, run in runs.items()},
        "timeline": {name: timeline(run) for name, run in runs.items()},
    }


def _tell(name: str, found: dict[str, Any]) -> None:
    say(f"{name}: demand {found['demand_w']:.0f} W, budget {found['budget_w']:.0f} W")
    for phase, of in found["phases"].items():
        say(
            f"  {phase:7} {of['power_w']:6.0f} W  {of['goodput_tok_s']:6.1f} tok/s  TTFT p50 {of['ttft_p50_s']:5.2f} "
            f"p95 {of['ttft_p95_s']:5.2f} s  TBT p50 {1e3 * of['tbt_p50_s']:4.0f} ms  {of['hottest_c']:4.0f} C"
        )
    steps = [("cut", found)] + ([("UPS lost", found["ups"])] if "ups" in found else [])
    for step, of in steps:
        say(
            f"  {step}: overshoot {of['overshoot_share']:.1%}, {of['overshoot_s']:.1f} s above 3 %; settles in "
            f"{_seconds(of['settle_s'])}; recovers in {_seconds(of['recover_s'])}"
        )
    say(f"  goodput under the budget: {found['goodput_share_of_attainable']:.1%} of the attainable")


def _seconds(value: float | None) -> str:
    return "no time seen" if value is None else f"{value:.1f} s"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench governor", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="headrace-governor-") as folder:
        found = asyncio.run(measure(Path(folder), args.quick))
    if args.json:
        finish("governor", argv, [], plain(found))
    return 0
