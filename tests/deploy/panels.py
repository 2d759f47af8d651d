"""Every query of every board on a real mesh under `headrace load`, seen by a real Prometheus.

`python -m tests.deploy.panels` prints a table: board, panel, what it asks, how many series answer. A panel without any
is there with its reason, or the command fails. `make panels`; about two minutes.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from headrace.cli import targets
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from tests.deploy.queries import DEPLOY
from tests.deploy.scraping import Prometheus
from tests.e2e.meshes import small_mesh

LOAD_S = 45
SCENARIO = "mixed"
RATE = "15s"
BUDGET_W = 1_500.0  # three played H100s are capped, and still serve
# Why a query may have no answer on a machine where all is well.
REASONS = {
    "headrace_certificate_expiry_timestamp_seconds": "this mesh has no TLS",
}


@dataclass(frozen=True, slots=True)
class Row:
    board: str
    panel: str
    legend: str
    series: int
    reason: str = ""


def asked() -> list[tuple[str, str, str, str]]:
    """(board, panel, legend, PromQL)"""
    return [
        (path.stem, panel["title"], target["legendFormat"], target["expr"].replace("$__rate_interval", RATE))
        for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]


async def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="headrace-panels-") as name:
        folder = Path(name)
        environment = {"HEADRACE_PLANT": "h100", "HEADRACE_ROW_BUDGET_W": str(BUDGET_W)}
        environment |= {"HEADRACE_TRACE_FILE": str(folder / "traces.jsonl"), "HEADRACE_SLOTS": "16"}
        config = small_mesh(folder / "mesh", gateways=1, environment=environment)
        async with Mesh(config) as mesh, Prometheus(folder, mesh.data_dir / targets.NAME) as prometheus:
            await prometheus.all_up(len(mesh.ids), within_s=60)
            await loaded(mesh)
            await refused(mesh)
            queries = asked()
            found = await prometheus.all_series([query for *_, query in queries], time.time())
    return [
        Row(board, panel, legend, len(series), "" if series else reason(query))
        for (board, panel, legend, query), series in zip(queries, found, strict=True)
    ]


async def loaded(mesh: Mesh) -> None:
    """As a user would: the command, on the running mesh."""
    words = ["load", "--data-dir", str(mesh.data_dir), "--scenario", SCENARIO, "--seconds", str(LOAD_S)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli.main", *words, stdout=sys.stderr.fileno(), env=dict(os.environ)
    )
    assert await process.wait() == 0
    assert await operator.servable(mesh.grpc_addr)


async def refused(mesh: Mesh) -> None:
    """What nobody can read, three times."""
    async with httpx.AsyncClient(base_url=mesh.http_url) as http:
        for _ in range(3):
            assert (await http.post("/v1/chat/completions", json={})).status_code == 400
            await asyncio.sleep(1.2)


def reason(query: str) -> str:
    return next((why for metric, why in REASONS.items() if metric in query), "")


def main() -> None:
    rows = asyncio.run(run())
    print("| Board | Panel | Query | Series |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.board} | {row.panel} | {row.legend} | {row.series or f'0: {row.reason}'} |")
    empty = [f"{row.board}: {row.panel}: {row.legend}" for row in rows if not row.series and not row.reason]
    if empty:
        raise SystemExit("empty without a reason:\n" + "\n".join(empty))


if __name__ == "__main__":
    main()
