"""`headrace demo-governor`: a mesh under load loses part of its power budget and gets it back, live and as a picture.

Profile engines that play H100s, so it runs anywhere; about a minute. The picture needs matplotlib (the extra `load`).
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from headrace.cli.demo_governor_picture import NoMatplotlib, save
from headrace.cli.demo_governor_screen import Held, Screen, table_rows
from headrace.cli.rehearse import mesh_config, stage
from headrace.cli.supervisor import Mesh, MeshFailed
from headrace.cli.view import Console
from headrace.client import HeadraceError
from headrace.mesh.errors import BadSetup
from headrace.rehearsal import meter
from headrace.rehearsal.scene import Scene
from headrace.rehearsal.stage import Stage
from headrace.rehearsal.story import Story, tell
from headrace.rehearsal.watch import Reading

PICTURE = Path("headrace-governor.png")
CUT = 0.7  # of the row's demand
WARM_S = 12.0  # until answers end as often as they begin, and GPUs are warm
HEARD_S = 1.2  # devices report once a second
NAMES = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Plan:
    before_s: float = 10.0
    during_s: float = 20.0
    after_s: float = 12.0

    @property
    def whole_s(self) -> float:
        return self.before_s + self.during_s + self.after_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--png", type=Path, default=PICTURE, metavar="FILE", help=f"the picture ({PICTURE})")
    parser.add_argument("--cut", type=_share, default=CUT, metavar="SHARE", help=f"of the demand that is left ({CUT})")


def _share(text: str) -> float:
    value = float(text)
    if not 0.4 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{value} is not between 0.4 and 1")
    return value


def run(args: argparse.Namespace) -> int:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        try:
            story = asyncio.run(_demo(Path(folder), args.cut, Plan(), console))
        except (MeshFailed, BadSetup, HeadraceError, grpc.RpcError, TimeoutError, OSError) as error:
            console.error(str(error) or type(error).__name__)
            return 1
    console.table("Before, during and after", *table_rows(story))
    console.title(story.finding())
    try:
        save(story, args.png)
    except NoMatplotlib as error:
        console.note(str(error))
    else:
        console.step(f"the picture is {args.png}")
    return 0


async def _demo(folder: Path, cut: float, plan: Plan, console: Console) -> Story:
    scene = Scene()
    console.step(f"starting a mesh: {scene.workers} workers that play H100s, queue manager, governor, gateway")
    async with Mesh(mesh_config(scene, folder), console.step) as mesh, stage(scene, mesh) as on_stage:
        console.step(f"{scene.rate_rps:g} requests a second, every other one with two pictures")
        on_stage.begin_load()
        await on_stage.heard()
        await asyncio.sleep(WARM_S)
        story = await _show(on_stage, cut, plan)
        console.step("stopping")
        await on_stage.budget("end", 0.0)
        await on_stage.end_load(0.0)
    return story


async def _show(on_stage: Stage, cut: float, plan: Plan) -> Story:
    began_s = time.time()
    on_stage.mark("before")
    with Screen(plan.whole_s, cut) as screen:
        drawing = asyncio.create_task(_draw(on_stage, screen))
        try:
            await asyncio.sleep(plan.before_s)
            readings = on_stage.watch.readings
            demand_w = meter.mean_w(readings, began_s + 1.0, meter.told_until_s(readings))
            await on_stage.budget("during", cut * demand_w)
            await asyncio.sleep(plan.during_s)
            await on_stage.budget("after", demand_w)
            await asyncio.sleep(plan.after_s)
            on_stage.mark("over")
            await asyncio.sleep(HEARD_S)
        finally:
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
        screen.draw(_story(on_stage), _stages(on_stage))
    return _story(on_stage)


async def _draw(on_stage: Stage, screen: Screen) -> None:
    while True:
        screen.draw(_story(on_stage), _stages(on_stage))
        await asyncio.sleep(screen.every_s)


def _story(on_stage: Stage) -> Story:
    """As far as it has come."""
    moments = [moment for moment in on_stage.moments if moment.name in NAMES]
    over = [moment.at_s for moment in on_stage.moments if moment.name == "over"]
    until_s = over[0] if over else time.time()
    return tell(moments, NAMES, on_stage.watch.readings, on_stage.asked, until_s)


def _stages(on_stage: Stage) -> list[Held]:
    """By stage, from each device's last word."""
    found: dict[str, list[Reading]] = {}
    for name, rows in sorted(on_stage.watch.readings.items()):
        found.setdefault("+".join(on_stage.watch.stages[name]), []).append(rows[-1])
    return [
        Held(stage, len(of), min((one.cap_w for one in of if one.cap_w), default=0.0), min(one.speed for one in of))
        for stage, of in found.items()
    ]
