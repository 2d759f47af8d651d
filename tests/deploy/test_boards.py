"""Every query of every board and alert, against a real Prometheus that scrapes a real mesh under a little load.
And from an exemplar that Prometheus keeps to the spans of its trace.

Whether the metrics that they name are exported at all is seen in tests/e2e/test_seen.py, without a Prometheus.
"""

import asyncio
import importlib.util
import re
import shutil
import time
from pathlib import Path
from types import ModuleType

import pytest

from headrace.cli import targets, trace
from headrace.cli.supervisor import Mesh
from tests.e2e.asking import ask, picture, request
from tests.e2e.meshes import small_mesh

pytest.importorskip("yaml")

from tests.deploy.queries import DEPLOY, alert_queries, board_queries, rules
from tests.deploy.scraping import Prometheus

# Nothing is in trouble in a healthy mesh without TLS; nothing can be read on a machine without sensors.
EMPTY_WHEN_HEALTHY = re.compile(r"_watts|_celsius|_joules|_certificate_")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus command")


def boards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boards", DEPLOY / "grafana/boards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_boards_are_those_of_their_tables() -> None:
    made = boards()
    assert made.names() == sorted(path.stem for path in (DEPLOY / "grafana/dashboards").glob("*.json"))
    for name in made.names():
        assert (DEPLOY / f"grafana/dashboards/{name}.json").read_text() == made.render(name), "run boards.py"


def test_recorded_series_that_are_used_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for where, query in (*alert_queries(), *board_queries()):
        assert set(re.findall(r"headrace:[\w:]+", query)) <= recorded, where


async def load(mesh: Mesh, until_s: float) -> None:
    n = 0
    while time.monotonic() < until_s:
        n += 1
        answers = [ask(mesh.grpc_addr, request(f"{n} {i}", images=[picture(i)], max_tokens=8)) for i in range(4)]
        await asyncio.gather(*answers)


@needs_prometheus
@pytest.mark.timeout(110)
async def test_every_query_has_an_answer_where_there_is_traffic(tmp_path: Path) -> None:
    spans = tmp_path / "traces.jsonl"
    traced = {"HEADRACE_TRACE_FILE": str(spans), "HEADRACE_TRACE_SAMPLE": "1"}
    config = small_mesh(tmp_path / "mesh", gateways=1, environment=traced)
    async with Mesh(config) as mesh, Prometheus(tmp_path, mesh.data_dir / targets.NAME) as prometheus:
        await prometheus.all_up(len(mesh.ids), within_s=20)
        await load(mesh, time.monotonic() + 8)
        await check(prometheus, time.time())
        await walk(prometheus, spans)


async def check(prometheus: Prometheus, at_s: float) -> None:
    asked = [pair for pair in board_queries() if not EMPTY_WHEN_HEALTHY.search(pair[1])]
    found = await prometheus.all_series([query for _, query in asked], at_s)
    assert [pair for pair, series in zip(asked, found, strict=True) if not series] == []
    await prometheus.all_series([query for _, query in alert_queries()], at_s)
    assert await prometheus.firing() == {}, "in a healthy mesh"


async def walk(prometheus: Prometheus, spans: Path) -> None:
    """The newest exemplar of any bucket leads to its trace."""
    now_s = time.time()
    kept = await prometheus.ask(
        "query_exemplars",
        query="headrace_time_to_first_token_seconds_bucket",
        start=str(now_s - 60),
        end=str(now_s),
    )
    found = [exemplar for series in kept for exemplar in series["exemplars"]]
    newest = max(found, key=lambda exemplar: float(exemplar["timestamp"]))
    told = trace.spans_of(spans, newest["labels"]["trace_id"])
    assert {"queue", "encode", "prefill"} <= {span["name"] for span in told}
