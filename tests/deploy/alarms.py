"""Alerts made to fire for real: python -m tests.deploy.alarms [--json], or `make alarms`; about six minutes.

A real Prometheus with the product's rules, as they are, scrapes a real mesh to which four things happen, one after the
other: its leader is killed, its power is cut, more is asked than it can do, and its leader is killed for good while
requests run, so that workers keep what nobody knows of. Each alert is seen in Prometheus' API as it begins, and as it
ends once the cause is gone.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc.aio

from headrace.cli import targets
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from tests.deploy.scraping import Prometheus
from tests.e2e.asking import ask, request
from tests.e2e.meshes import small_mesh, until_heard

FIRES_WITHIN_S, ENDS_WITHIN_S = 200.0, 150.0
AMPLE_W, TINY_W = 100_000.0, 10.0
CLASSES = """
default = "interactive"
[classes.interactive]
ttft_s = 0.5
queue_limit = 8
"""


@dataclass(frozen=True, slots=True)
class Seen:
    cause: str
    alert: str
    severity: str
    after_s: float  # from the cause until Prometheus says that it fires
    ended_s: float  # from the cause's end; negative: it stays for a while by its rule
    summary: str


class Scenes:
    def __init__(self, mesh: Mesh, prometheus: Prometheus, say: Callable[[str], None]) -> None:
        self._mesh, self._prometheus, self._say = mesh, prometheus, say
        self.seen: list[Seen] = []

    async def scene(
        self,
        cause: str,
        alerts: tuple[str, ...],
        do: Callable[[], Awaitable[None]],
        undo: Callable[[], Awaitable[None]],
        *,
        ends: tuple[str, ...],
    ) -> None:
        """ends: those of the alerts that are over as soon as their cause is; the others look back for longer."""
        self._say(f"{cause} ...")
        began_s = time.monotonic()
        await do()
        told = await self._until(alerts, began_s, FIRES_WITHIN_S)
        undone_s = time.monotonic()
        await undo()
        over = await self._until_over(ends, undone_s)
        for alert, (after_s, severity, summary) in told.items():
            self.seen.append(Seen(cause, alert, severity, after_s, over.get(alert, -1.0), summary))
            self._say(f"  {alert} after {after_s:.0f} s: {summary}")

    async def _until(
        self, alerts: tuple[str, ...], began_s: float, within_s: float
    ) -> dict[str, tuple[float, str, str]]:
        told: dict[str, tuple[float, str, str]] = {}
        while set(told) != set(alerts):
            if time.monotonic() - began_s > within_s:
                raise SystemExit(f"{set(alerts) - set(told)} did not fire within {within_s:.0f} s")
            for alert, what in (await self._prometheus.firing()).items():
                if alert in alerts and alert not in told:
                    after_s = time.monotonic() - began_s
                    told[alert] = (after_s, what["labels"]["severity"], what["annotations"]["summary"])
            await asyncio.sleep(0.5)
        return told

    async def _until_over(self, alerts: tuple[str, ...], began_s: float) -> dict[str, float]:
        over: dict[str, float] = {}
        while set(over) != set(alerts):
            if time.monotonic() - began_s > ENDS_WITHIN_S:
                raise SystemExit(f"{set(alerts) - set(over)} still fire after {ENDS_WITHIN_S:.0f} s")
            firing = await self._prometheus.firing()
            over |= {alert: time.monotonic() - began_s for alert in alerts if alert not in firing and alert not in over}
            await asyncio.sleep(0.5)
        return over

    async def all(self) -> None:
        await self._leader_killed()
        await self._power_cut()
        await self._overload()
        await self._leader_gone()

    async def _leader_killed(self) -> None:
        async def kill() -> None:
            self._mesh.kill("qm-0")
            await self._mesh.restart("qm-0")

        await self.scene(
            "the leader is killed and starts again", ("HeadraceLeaderChanged",), kill, self._whole, ends=()
        )

    async def _power_cut(self) -> None:
        governor = self._mesh.addresses.grpc["governor-0"]

        async def cut() -> None:
            await operator.set_budget(governor, TINY_W, who="alarms")

        async def give_back() -> None:
            await operator.set_budget(governor, AMPLE_W, who="alarms")

        alert = ("HeadraceRowOverLimit",)
        await self.scene("the row's power budget is cut below what its devices draw", alert, cut, give_back, ends=alert)

    async def _overload(self) -> None:
        crowd: list[asyncio.Task[None]] = []

        async def flood() -> None:
            crowd.extend(asyncio.create_task(self._insist(n)) for n in range(40))

        async def relent() -> None:
            for one in crowd:
                one.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)

        alerts = ("HeadraceRefusing", "HeadraceUnavailableFast", "HeadraceFirstTokensLateFast")
        await self.scene(
            "40 clients ask a mesh of 8 slots without a pause", alerts, flood, relent, ends=("HeadraceRefusing",)
        )

    async def _leader_gone(self) -> None:
        asked: list[asyncio.Task[None]] = []

        async def kill() -> None:
            asked.extend(asyncio.create_task(self._once(n)) for n in range(4))
            await asyncio.sleep(0.4)
            self._mesh.kill("qm-0")

        async def bring_back() -> None:
            await self._mesh.restart("qm-0")
            await self._whole()
            await asyncio.gather(*asked)

        alerts = ("HeadraceServiceDown", "HeadraceNoLeader", "HeadraceRequestLeak")
        await self.scene(
            "kill -9 of the leader while four requests run, and none follows", alerts, kill, bring_back, ends=alerts
        )

    async def _whole(self) -> None:
        await until_heard(self._mesh)

    async def _insist(self, n: int) -> None:
        while True:
            await self._once(n)

    async def _once(self, n: int) -> None:
        try:
            await ask(self._mesh.grpc_addr, request(f"crowd {n}", max_tokens=100, timeout_s=110.0))
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.25)  # refused


async def run(say: Callable[[str], None]) -> list[Seen]:
    with tempfile.TemporaryDirectory(prefix="headrace-alarms-") as name:
        folder = Path(name)
        (folder / "classes.toml").write_text(CLASSES)
        environment = {"HEADRACE_PLANT": "h100", "HEADRACE_CLASSES_FILE": str(folder / "classes.toml")}
        environment["HEADRACE_ROW_BUDGET_W"] = str(AMPLE_W)
        config = small_mesh(folder / "mesh", gateways=1, restart=False, environment=environment)
        async with Mesh(config) as mesh, Prometheus(folder, mesh.data_dir / targets.NAME) as prometheus:
            await prometheus.all_up(len(mesh.ids), within_s=30)
            scenes = Scenes(mesh, prometheus, say)
            await scenes.all()
            return scenes.seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    seen = asyncio.run(run(lambda line: print(line, file=sys.stderr, flush=True)))
    if wanted.json:
        print(json.dumps([asdict(one) for one in seen], indent=1))
        return
    print("| What happens | Alert | Severity | Fires after | Over after |\n|---|---|---|---|---|")
    for one in seen:
        over = f"{one.ended_s:.0f} s" if one.ended_s >= 0 else "looks back"
        print(f"| {one.cause} | {one.alert} | {one.severity} | {one.after_s:.0f} s | {over} |")


if __name__ == "__main__":
    main()
