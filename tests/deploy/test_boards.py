"""Every query of every board and alert, against a real Prometheus that scrapes a real mesh under a little load.

The metric names that the boards use are those that the code exports: a renamed metric is an empty panel.
"""

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from headrace.cli.supervisor import Mesh
from headrace.mesh.servers import free_port
from headrace.worker.readings import FIELDS as WORKER_FIELDS
from headrace.worker.readings import energy_readings
from services.gateway.metrics import GatewayMetrics
from services.governor.power_readings import power_readings
from services.governor.readings import readings
from services.queue_manager.metrics import queue_registry
from tests.e2e.asking import ask, picture, request
from tests.e2e.meshes import small_mesh

yaml = pytest.importorskip("yaml")

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
METRIC = re.compile(r"\b(?:headrace_|vllm:)\w+")
SCRAPED = ("qm-0", "governor-0", "encoder-0", "prefill-0", "decode-0")
JOBS = {"qm-0": "queue-manager", "governor-0": "governor", "encoder-0": "encoder", "prefill-0": "prefill"}
JOBS |= {"decode-0": "decode", "gateway-0": "gateway"}
# Nothing is refused, lost or in trouble in a healthy mesh; nothing can be read on a machine without sensors.
EMPTY_WHEN_HEALTHY = re.compile(r"refused|reason=\"(?:error|deadline)\"|_watts|_celsius|_joules")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus command")


def boards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boards", DEPLOY / "grafana/boards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def board_queries() -> list[tuple[str, str]]:
    """(board and panel, PromQL) as Grafana would send it, from the files that it reads."""
    found = []
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            where = f"{path.stem}: {panel['title']}"
            found += [(where, target["expr"].replace("$__rate_interval", "10s")) for target in panel["targets"]]
    return found


def alert_queries() -> list[tuple[str, str]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def test_the_boards_are_those_of_their_tables() -> None:
    made = boards()
    assert made.names() == sorted(path.stem for path in (DEPLOY / "grafana/dashboards").glob("*.json"))
    for name in made.names():
        assert (DEPLOY / f"grafana/dashboards/{name}.json").read_text() == made.render(name), "run boards.py"


def exported_names() -> set[str]:
    """Everything that any process of ours exports, as Prometheus calls it; histograms without their suffix."""
    families = [*GatewayMetrics(("any",)).collect(), *queue_registry(lambda: None, lambda: None).collect()]
    found = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    nobody: Any = None  # a reading's name is known before anything is read
    read = [*readings(nobody), *power_readings(nobody), *energy_readings("any", nobody)]
    return found | {reading.name for reading in read} | set(WORKER_FIELDS)


@pytest.mark.parametrize(("where", "query"), [*board_queries(), *alert_queries()])
def test_every_metric_exists_in_the_code(where: str, query: str) -> None:
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(query)}
    assert used <= exported_names(), where
    assert used or "up" in query


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool command")
def test_promtool_accepts_configuration_and_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", str(DEPLOY / "prometheus/prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A real server in a temporary directory, scraping the mesh's processes once a second."""

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        jobs = [
            {"job_name": JOBS[name], "static_configs": [{"targets": [address]}]} for name, address in targets.items()
        ]
        timing = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": timing, "scrape_configs": jobs, "rule_files": [str(RULES)]}))
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        options.append(f"--web.listen-address={self.url.removeprefix('http://')}")
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(["prometheus", *options], stdout=self._log, stderr=self._log)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    async def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as http:
            reply = await http.get(f"/api/v1/{path}", params=parameters)
        answer: dict[str, Any] = reply.json()
        assert answer["status"] == "success", (parameters, answer)
        data: dict[str, Any] = answer["data"]
        return data

    async def all_up(self, count: int, within_s: float) -> None:
        deadline_s, health = time.monotonic() + within_s, ["no answer"]
        while time.monotonic() < deadline_s:
            try:
                targets = (await self.ask("targets"))["activeTargets"]
            except (httpx.TransportError, ValueError):
                targets = []
            health = [f"{target['labels']['job']}: {target['health']} {target['lastError']}" for target in targets]
            if len(targets) == count and all(target["health"] == "up" for target in targets):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(health)


async def load(mesh: Mesh, until_s: float) -> None:
    n = 0
    while time.monotonic() < until_s:
        n += 1
        answers = [ask(mesh.grpc_addr, request(f"{n} {i}", images=[picture(i)], max_tokens=8)) for i in range(4)]
        await asyncio.gather(*answers)


@pytest.fixture
def metrics_ports() -> dict[str, str]:
    return {name: f"127.0.0.1:{free_port()}" for name in SCRAPED}


@needs_prometheus
@pytest.mark.timeout(110)
async def test_every_query_has_an_answer_where_there_is_traffic(tmp_path: Path, metrics_ports: dict[str, str]) -> None:
    told = {name: {"HEADRACE_METRICS_ADDR": address} for name, address in metrics_ports.items()}
    config = small_mesh(tmp_path / "mesh", gateways=1, service_environment=told)
    async with Mesh(config) as mesh:
        prometheus = Prometheus(tmp_path, {**metrics_ports, "gateway-0": mesh.addresses.http["gateway-0"]})
        try:
            await prometheus.all_up(len(JOBS), within_s=20)
            await load(mesh, time.monotonic() + 8)
            await check(prometheus)
        finally:
            prometheus.stop()


async def check(prometheus: Prometheus) -> None:
    exported = set((await prometheus.ask("label/__name__/values")) or ())
    silent = []
    for where, query in board_queries():
        result = (await prometheus.ask("query", query=query))["result"]
        finite = [series for series in result if series["value"][1] not in ("NaN", "+Inf", "-Inf")]
        if not finite and not EMPTY_WHEN_HEALTHY.search(query):
            silent.append((where, query))
        used = set(METRIC.findall(query))
        if not EMPTY_WHEN_HEALTHY.search(query):
            assert used <= exported, (where, used - exported)
    assert silent == []
    for where, query in alert_queries():
        await prometheus.ask("query", query=query)
        assert not (await firing(prometheus, where)), f"{where} fires in a healthy mesh"


async def firing(prometheus: Prometheus, alert: str) -> list[Any]:
    found = await prometheus.ask("query", query=f'ALERTS{{alertname="{alert}",alertstate="firing"}}')
    result: list[Any] = found["result"]
    return result
